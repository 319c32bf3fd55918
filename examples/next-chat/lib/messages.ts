import type { StoredMessage } from 'active-runs';
import type { UIMessage } from 'ai';

/** `isPartial`: the answer was still growing when it was read from the store. */
export type ChatMessage = UIMessage<{ isPartial?: boolean }>;
type Part = ChatMessage['parts'][number];

export function textOf(message: Pick<UIMessage, 'parts'>): string {
  return message.parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
}

/** The messages of a session's file as `useChat` takes them. */
export function toChatMessages(stored: StoredMessage[]): ChatMessage[] {
  return stored.map(({ id, role, content, parts, _streaming }) => ({
    id,
    role: role === 'user' ? 'user' : 'assistant',
    parts: Array.isArray(parts) ? parts.map(toPart) : [{ type: 'text', text: String(content ?? '') }],
    ...(_streaming === true ? { metadata: { isPartial: true } } : {}),
  }));
}

/** Of the parts, only tool calls are stored in a form of their own. */
function toPart(part: Part | ToolInvocation): Part {
  if (part.type !== 'tool-invocation') return part as Part;
  const { toolCallId, toolName, args, result, errorText } = part as ToolInvocation;
  const call = { type: 'dynamic-tool', toolCallId, toolName, input: args } as const;
  if (errorText !== undefined) return { ...call, state: 'output-error', errorText: String(errorText) };
  if (result !== undefined) return { ...call, state: 'output-available', output: result };
  return { ...call, state: 'input-available' };
}

interface ToolInvocation {
  type: 'tool-invocation';
  toolCallId: string;
  toolName: string;
  args: Record<string, unknown>;
  result?: Record<string, unknown>;
  errorText?: unknown;
}
