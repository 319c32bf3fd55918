'use client';

import { type FormEvent, type KeyboardEvent, useRef, useState } from 'react';
import { SendIcon, StopIcon } from './icons';
import styles from './composer.module.css';

interface Props {
  onSend: (text: string) => void;
  /** While there is an answer to wait for. */
  isBusy: boolean;
  /** Absent when there is nothing that could be stopped. */
  onStop?: () => void;
  isStopping?: boolean;
}

/** Enter sends, Shift+Enter begins a new line. A message can be written, but not sent, while the agent answers. */
export function Composer({ onSend, isBusy, onStop, isStopping = false }: Props) {
  const [text, setText] = useState('');
  const field = useRef<HTMLTextAreaElement>(null);
  const canSend = !isBusy && text.trim() !== '';

  function send(event?: FormEvent) {
    event?.preventDefault();
    if (!canSend) return;
    onSend(text.trim());
    setText('');
    field.current?.focus();
  }

  function onKeyDown(event: KeyboardEvent) {
    // Enter also ends the composition of a character, such as a Japanese one.
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    send();
  }

  return (
    <form className={styles.composer} onSubmit={send}>
      <textarea
        ref={field}
        className={styles.field}
        aria-label="Message"
        placeholder="Ask something"
        rows={1}
        autoFocus
        value={text}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={onKeyDown}
      />
      {onStop ? (
        <button type="button" className={styles.button} aria-label="Stop" title="Stop (Esc)" disabled={isStopping} onClick={onStop}>
          <StopIcon />
        </button>
      ) : (
        <button type="submit" className={styles.button} aria-label="Send" title="Send (Enter)" disabled={!canSend}>
          <SendIcon />
        </button>
      )}
    </form>
  );
}
