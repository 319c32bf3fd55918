import { RunChatTransport } from 'active-runs/client';
import type { ChatMessage } from './messages';

type Transport = RunChatTransport<ChatMessage>;

/** Sends to `/api/chat`, comes back at `/api/chat/[id]/stream`, stops at `/api/chat/[id]/stop`. */
export class ChatTransport extends RunChatTransport<ChatMessage> {
  readonly #onSent: () => void;

  /** @param onSent is called when the server has stored a message and begun its answer. */
  constructor(onSent: () => void) {
    super({ api: '/api/chat' });
    this.#onSent = onSent;
  }

  override async sendMessages(options: Parameters<Transport['sendMessages']>[0]) {
    const answer = await super.sendMessages(options);
    this.#onSent();
    return answer;
  }
}
