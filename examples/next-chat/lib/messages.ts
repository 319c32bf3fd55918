import type { StoredMessage } from 'active-runs';
import type { UIMessage } from 'ai';

export type ChatMessage = UIMessage<{ isPartial?: boolean }>;
type Part = ChatMessage['parts'][number];

export function textOf(message: Pick<UIMessage, 'parts'>): string {
  return message.parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
}

/** The messages of a session's file as `useChat` takes them. */
export function toChatMessages(stored: StoredMessage[]): ChatMessage[] {
  return stored.map((message) => ({
    id: message.id,
    role: message.role,
    parts: (message.parts ?? [{ type: 'text', text: message.content }]).map(toPart),
    ...(message._streaming ? { metadata: { isPartial: true } } : {}),
  }));
}

/** Only tool calls are stored in a form of their own. */
function toPart(part: unknown): Part {
  const { type, toolCallId, toolName, args, result, errorText } = part as ToolInvocation;
  if (type !== 'tool-invocation') return part as Part;
  const call = { type: 'dynamic-tool', toolCallId, toolName, input: args } as const;
  if (errorText !== undefined) return { ...call, state: 'output-error', errorText: String(errorText) };
  if (result !== undefined) return { ...call, state: 'output-available', output: result };
  return { ...call, state: 'input-available' };
}

interface ToolInvocation {
  type: string;
  toolCallId: string;
  toolName: string;
  args: Record<string, unknown>;
  result?: Record<string, unknown>;
  errorText?: unknown;
}
