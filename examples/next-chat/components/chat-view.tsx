'use client';

import { Chat, useChat } from '@ai-sdk/react';
import { useRouter } from 'next/navigation';
import { useCallback, useEffect, useRef, useState } from 'react';
import { type ChatMessage, textOf } from '@/lib/messages';
import { onOtherTabs, tellOtherTabs } from '@/lib/tabs';
import { ChatTransport } from '@/lib/transport';
import { Composer } from './composer';
import { DownIcon } from './icons';
import { Message } from './message';
import { useScrollToEnd } from './use-scroll-to-end';
import styles from './chat-view.module.css';

/** How often what arrives is drawn, in milliseconds. */
const DRAW_MS = 50;

interface Props {
  id: string;
  title: string;
  messages: ChatMessage[];
  /** Whether there was an answer under way when the page was made. */
  isAnswering: boolean;
}

export function ChatView({ id, title, messages: stored, isAnswering: wasAnswering }: Props) {
  const router = useRouter();
  const [isResuming, setResuming] = useState(wasAnswering);
  // A Chat of our own. One that `useChat` makes stops the run when the page is left (`@ai-sdk/react` 4), and does not know that
  // this transport's resumed streams begin at the beginning.
  const [{ chat, transport }] = useState(() => {
    const refresh = () => router.refresh();
    const transport = new ChatTransport(() => {
      tellOtherTabs(id);
      refresh();
    });
    return { transport, chat: new Chat<ChatMessage>({ id, messages: stored, transport, onFinish: refresh }) };
  });
  const { messages, setMessages, sendMessage, status, error } = useChat({ chat, experimental_throttle: DRAW_MS });
  const isAnswering = isResuming || status === 'submitted' || status === 'streaming';
  const [isStopping, setStopping] = useState(false);
  const { list, end, isAtEnd, scrollToEnd } = useScrollToEnd();

  /** Shows what the server has, and goes on with an answer that is under way. */
  const synchronize = useCallback(async () => {
    try {
      const response = await fetch(`/api/chats/${id}`);
      if (response.status === 404) return router.push('/');
      setMessages(await response.json());
    } catch {
      return; // The server is not there; what was said about it stays on the screen.
    }
    await chat.resumeStream();
  }, [chat, id, router, setMessages]);

  useEffect(() => {
    void chat.resumeStream().finally(() => setResuming(false));
    // The run goes on, and who comes back resumes it.
    return () => transport.leave(id);
  }, [chat, id, transport]);

  useEffect(() => onOtherTabs((changed) => void (changed === id && synchronize())), [id, synchronize]);

  /** Stops the run. That of `useChat` does so as well, but shows nothing that the agent says until its end. */
  const stop = useCallback(async () => {
    setStopping(true);
    await transport.stop(id).catch(() => setStopping(false));
  }, [id, transport]);

  useEffect(() => {
    if (!isAnswering) return setStopping(false);
    const onKeyDown = (event: KeyboardEvent) => void (event.key === 'Escape' && !event.isComposing && stop());
    window.addEventListener('keydown', onKeyDown);
    return () => window.removeEventListener('keydown', onKeyDown);
  }, [isAnswering, stop]);

  const last = messages.at(-1);
  // What an agent says of its failure is a part of its answer.
  const isToldInAnswer = error && last?.role === 'assistant' && textOf(last).endsWith(`[error] ${error.message}`);
  return (
    <div className={styles.page}>
      <h1 className="visuallyHidden">{title}</h1>
      <div ref={list} className={styles.scroller}>
        <div className={styles.messages} role="log" aria-label="Messages" aria-busy={isAnswering}>
          {messages.map((message) => (
            <Message key={message.id} message={message} isGrowing={isAnswering && message === last} />
          ))}
          {isAnswering && last?.role === 'user' && <p className={styles.waiting}>Starting the agent…</p>}
          {error && !isToldInAnswer && (
            <div className={styles.error} role="alert">
              <span>{error instanceof TypeError ? 'The connection to the server was lost.' : error.message}</span>
              <button type="button" onClick={synchronize}>
                Reload the chat
              </button>
            </div>
          )}
          <div ref={end} />
        </div>
      </div>
      <div className={styles.foot}>
        {!isAtEnd && (
          <button type="button" className={styles.toEnd} aria-label="Scroll to the end" onClick={scrollToEnd}>
            <DownIcon />
          </button>
        )}
        <Composer
          isBusy={isAnswering}
          isStopping={isStopping}
          onStop={isAnswering ? stop : undefined}
          onSend={(text) => {
            void sendMessage({ text });
            scrollToEnd();
          }}
        />
      </div>
    </div>
  );
}
