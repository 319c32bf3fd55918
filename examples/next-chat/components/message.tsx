'use client';

import { type DynamicToolUIPart, getToolName, isToolUIPart, type ToolUIPart } from 'ai';
import { memo } from 'react';
import { type ChatMessage, textOf } from '@/lib/messages';
import { ChevronIcon } from './icons';
import { Markdown } from './markdown';
import styles from './message.module.css';

interface Props {
  message: ChatMessage;
  /** Whether there is more to come. */
  isGrowing: boolean;
}

export const Message = memo(function Message({ message, isGrowing }: Props) {
  if (message.role === 'user') {
    return (
      <article className={styles.user} aria-label="You" data-role="user">
        {textOf(message)}
      </article>
    );
  }
  const last = message.parts.length - 1;
  const isCutOff = message.metadata?.startedAt && !message.metadata.end && !isGrowing;
  return (
    <article className={styles.assistant} aria-label="Agent" data-role="assistant" data-growing={isGrowing}>
      {message.parts.map((part, index) => (
        <Part key={index} part={part} isLive={isGrowing} isGrowing={isGrowing && index === last} />
      ))}
      {isCutOff && <p className={styles.cutOff}>The answer ends here: the server stopped while it was being written.</p>}
    </article>
  );
});

interface PartProps {
  part: ChatMessage['parts'][number];
  /** Whether there is more to come of the message. */
  isLive: boolean;
  /** Whether there is more to come of the part. */
  isGrowing: boolean;
}

function Part({ part, isLive, isGrowing }: PartProps) {
  if (part.type === 'text') return <Text text={part.text} isGrowing={isGrowing} />;
  if (part.type === 'reasoning') {
    // A status is not stored: it says what is being waited for.
    if (!part.id?.startsWith('status-')) return <Reasoning text={part.text} isGrowing={isGrowing} />;
    return isGrowing && <p className={styles.status}>{part.text}</p>;
  }
  return isToolUIPart(part) && <ToolCall part={part} isLive={isLive} />;
}

function Text({ text, isGrowing }: { text: string; isGrowing: boolean }) {
  if (text.startsWith('[error] ')) {
    return (
      <p className={styles.error} role="alert">
        {text.slice('[error] '.length)}
      </p>
    );
  }
  return (
    <div data-part="text">
      <Markdown text={text} isGrowing={isGrowing} />
    </div>
  );
}

function Reasoning({ text, isGrowing }: { text: string; isGrowing: boolean }) {
  return (
    <details className={styles.reasoning} data-part="reasoning">
      <summary>
        <ChevronIcon />
        <span className={isGrowing ? styles.shimmer : undefined}>{isGrowing ? 'Thinking' : 'Thought'}</span>
        <span className={styles.preview}>{isGrowing ? lastWords(text) : text}</span>
      </summary>
      <p className={styles.thoughts}>{text}</p>
    </details>
  );
}

/** The end of a text that is as long as a line can show. */
const lastWords = (text: string) => (text.length > 90 ? `…${text.slice(-90)}` : text);

function ToolCall({ part, isLive }: { part: ToolUIPart | DynamicToolUIPart; isLive: boolean }) {
  const name = getToolName(part);
  const { input, output, errorText } = part;
  const label = outcomeOf(part, isLive);
  return (
    <details className={styles.tool} data-part="tool" data-state={label}>
      <summary>
        <span className={styles.mark} role="img" aria-label={label} />
        <code className={styles.toolName}>{name}</code>
        <span className={styles.preview}>{summaryOf(part)}</span>
        <ChevronIcon />
      </summary>
      <dl className={styles.toolBody}>
        <dt>Input</dt>
        <dd>
          <pre>{JSON.stringify(input, null, 2)}</pre>
        </dd>
        {output !== undefined && (
          <>
            <dt>Result</dt>
            <dd>
              <pre>{resultText(output)}</pre>
            </dd>
          </>
        )}
        {errorText !== undefined && (
          <>
            <dt>Error</dt>
            <dd>
              <pre>{errorText}</pre>
            </dd>
          </>
        )}
      </dl>
    </details>
  );
}

function outcomeOf({ state }: ToolUIPart | DynamicToolUIPart, isLive: boolean) {
  if (state === 'output-error') return 'failed';
  if (state === 'output-available') return 'done';
  return isLive ? 'running' : 'unfinished';
}

/** What fits on the line of a call: how it ended, else what it was called with. */
function summaryOf({ state, input, output, errorText }: ToolUIPart | DynamicToolUIPart): string {
  if (state === 'output-error') return errorText;
  if (state === 'output-available') return resultText(output).split('\n', 1)[0] ?? '';
  const values = input && typeof input === 'object' ? Object.values(input) : [];
  return values.map((value) => (typeof value === 'string' ? value : JSON.stringify(value))).join(' ');
}

function resultText(output: unknown): string {
  const text = (output as { text?: unknown } | null)?.text;
  return typeof text === 'string' ? text : JSON.stringify(output, null, 2);
}
