// The browser's tabs tell each other when something happened to a chat, so that all show the same.

const channel = typeof BroadcastChannel === 'undefined' ? undefined : new BroadcastChannel('next-chat');

/** Tells the other tabs that a chat was begun, asked or deleted; they look it up. */
export function tellOtherTabs(chatId: string) {
  channel?.postMessage(chatId);
}

/** @returns a function that ends it */
export function onOtherTabs(listener: (chatId: string) => void) {
  const onMessage = ({ data }: MessageEvent<string>) => listener(data);
  channel?.addEventListener('message', onMessage);
  return () => channel?.removeEventListener('message', onMessage);
}
