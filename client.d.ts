/**
 * A message of the AI SDK as it must be before a resumed stream (`Last-Event-ID`, `protocol: "ai-sdk"`) goes on with it:
 * without its first unfinished part and what follows, which the stream tells again from there.
 *
 * @returns The message itself if all its parts are finished, else a copy.
 */
export function dropOpenParts<Message extends { parts: readonly { state?: string }[] }>(message: Message): Message;
