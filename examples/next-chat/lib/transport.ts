import { DefaultChatTransport } from 'ai';
import type { ChatMessage } from './messages';

type Transport = DefaultChatTransport<ChatMessage>;

interface Listeners {
  /** The server has stored a message and begun its answer. */
  onSent: () => void;
  /** The server has been asked for an answer that is under way; whether there is one is now known. */
  onResumed: () => void;
}

/** Speaks with `/api/chats/[id]/turn`. */
export class TurnTransport extends DefaultChatTransport<ChatMessage> {
  readonly #listeners: Listeners;

  constructor(listeners: Listeners) {
    super({
      // The server has the history: it is sent what is new.
      prepareSendMessagesRequest: ({ id, messages }) => ({ api: turnOf(id), body: { message: messages.at(-1) } }),
      prepareReconnectToStreamRequest: ({ id }) => ({ api: turnOf(id) }),
    });
    this.#listeners = listeners;
  }

  override async sendMessages(options: Parameters<Transport['sendMessages']>[0]) {
    const answer = await super.sendMessages(options);
    this.#listeners.onSent();
    return answer;
  }

  override async reconnectToStream(options: Parameters<Transport['reconnectToStream']>[0]) {
    try {
      return await super.reconnectToStream(options);
    } finally {
      // A newer attempt takes the place of one that was aborted.
      if (!options.abortSignal?.aborted) this.#listeners.onResumed();
    }
  }
}

export const turnOf = (chatId: string) => `/api/chats/${chatId}/turn`;
