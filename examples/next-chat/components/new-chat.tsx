'use client';

import { useRouter } from 'next/navigation';
import { useState } from 'react';
import { tellOtherTabs } from '@/lib/tabs';
import { Composer } from './composer';
import { ArrowIcon } from './icons';
import styles from './new-chat.module.css';

const QUESTIONS = [
  'What is in this folder?',
  'Which files have changed most recently?',
  'Where is the store explained?',
];

export function NewChat({ agentName }: { agentName: string }) {
  const router = useRouter();
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<string>();

  async function begin(text: string) {
    setBusy(true);
    setError(undefined);
    try {
      const headers = { 'content-type': 'application/json' };
      const response = await fetch('/api/chats', { method: 'POST', headers, body: JSON.stringify({ text }) });
      if (!response.ok) throw new Error(await response.text());
      const { id } = (await response.json()) as { id: string };
      tellOtherTabs(id);
      router.push(`/chat/${id}`);
      router.refresh();
    } catch {
      setError('The chat could not be started. Is the server still running?');
      setBusy(false);
    }
  }

  return (
    <div className={styles.page}>
      <div className={styles.middle}>
        <h1 className={styles.headline}>What would you like to know?</h1>
        <p className={styles.lead}>{agentName} thinks, uses its tools, and answers while you watch.</p>
        <Composer isBusy={isBusy} onSend={begin} />
        {error && (
          <p className={styles.error} role="alert">
            {error}
          </p>
        )}
        <ul className={styles.questions}>
          {QUESTIONS.map((question) => (
            <li key={question}>
              <button type="button" disabled={isBusy} onClick={() => begin(question)}>
                {question}
                <ArrowIcon />
              </button>
            </li>
          ))}
        </ul>
      </div>
    </div>
  );
}
