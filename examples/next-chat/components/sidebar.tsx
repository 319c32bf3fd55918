'use client';

import Link from 'next/link';
import { useParams, usePathname, useRouter } from 'next/navigation';
import { useEffect, useState } from 'react';
import { onOtherTabs, tellOtherTabs } from '@/lib/tabs';
import { BinIcon, MenuIcon, PlusIcon } from './icons';
import styles from './sidebar.module.css';

/** How often the list is renewed while chats other than the shown one are being answered, in milliseconds. */
const REFRESH_MS = 3_000;

interface Chat {
  id: string;
  title: string;
  updatedAt: number;
  isAnswering: boolean;
}

export function Sidebar({ chats }: { chats: Chat[] }) {
  const { id: current } = useParams<{ id?: string }>();
  const pathname = usePathname();
  const router = useRouter();
  const [isOpen, setOpen] = useState(false); // where the window is too narrow for it to be always there

  useEffect(() => onOtherTabs(() => router.refresh()), [router]);
  useEffect(() => setOpen(false), [pathname]);

  // The page reads only the answer that it shows: whether others have ended, it has to ask.
  const hasOthers = chats.some(({ id, isAnswering }) => isAnswering && id !== current);
  useEffect(() => {
    if (!hasOthers) return;
    const timer = setInterval(() => router.refresh(), REFRESH_MS);
    return () => clearInterval(timer);
  }, [hasOthers, router]);

  async function remove({ id, title }: Chat) {
    if (!window.confirm(`Delete “${title}”?`)) return;
    await fetch(`/api/chats/${id}`, { method: 'DELETE' });
    tellOtherTabs(id);
    if (id === current) router.push('/');
    router.refresh();
  }

  return (
    <>
      <button
        type="button"
        className={styles.menu}
        aria-label="Chats"
        aria-expanded={isOpen}
        aria-controls="chats"
        onClick={() => setOpen(!isOpen)}
      >
        <MenuIcon />
      </button>
      <nav id="chats" className={styles.sidebar} data-open={isOpen} aria-label="Chats">
        <header className={styles.brand}>
          <span className={styles.mark} aria-hidden="true" />
          active-runs
        </header>
        <Link href="/" className={styles.newChat} aria-current={pathname === '/' ? 'page' : undefined}>
          <PlusIcon />
          New chat
        </Link>
        <ul className={styles.list}>
          {chats.map((chat) => (
            <li key={chat.id} className={styles.item}>
              <Link
                href={`/chat/${chat.id}`}
                className={styles.link}
                aria-current={chat.id === current ? 'page' : undefined}
                title={chat.title}
              >
                <span className={styles.title}>{chat.title}</span>
                {chat.isAnswering && <span className={styles.answering} role="img" aria-label="is being answered" />}
              </Link>
              <button type="button" className={styles.remove} aria-label={`Delete ${chat.title}`} onClick={() => remove(chat)}>
                <BinIcon />
              </button>
            </li>
          ))}
        </ul>
        {chats.length === 0 && <p className={styles.none}>Your chats will be listed here.</p>}
      </nav>
      {isOpen && <div className={styles.shade} aria-hidden="true" onClick={() => setOpen(false)} />}
    </>
  );
}
