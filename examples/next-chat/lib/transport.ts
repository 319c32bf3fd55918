import { DefaultChatTransport } from 'ai';
import type { ChatMessage } from './messages';

/** Speaks with `/api/chats/[id]/turn`. `onSent` is called when the server has stored a message and begun its answer. */
export class TurnTransport extends DefaultChatTransport<ChatMessage> {
  readonly #onSent: (chatId: string) => void;

  constructor(onSent: (chatId: string) => void) {
    super({
      // The server has the history: it is sent what is new.
      prepareSendMessagesRequest: ({ id, messages }) => ({ api: turnOf(id), body: { message: messages.at(-1) } }),
      prepareReconnectToStreamRequest: ({ id }) => ({ api: turnOf(id) }),
    });
    this.#onSent = onSent;
  }

  override async sendMessages(options: Parameters<DefaultChatTransport<ChatMessage>['sendMessages']>[0]) {
    const answer = await super.sendMessages(options);
    this.#onSent(options.chatId);
    return answer;
  }
}

export const turnOf = (chatId: string) => `/api/chats/${chatId}/turn`;
