import type { UIMessage } from 'ai';

/** When the answer began, and how it ended; `end` is not there before it has. */
export type ChatMessage = UIMessage<{ startedAt?: number; end?: string }>;

export function textOf(message: Pick<UIMessage, 'parts'>): string {
  return message.parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
}
