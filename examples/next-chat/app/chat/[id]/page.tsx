import { readMessages } from 'active-runs';
import type { Metadata } from 'next';
import { notFound } from 'next/navigation';
import { ChatView } from '@/components/chat-view';
import { toChatMessages } from '@/lib/messages';
import { findSession } from '@/lib/sessions';

type Props = PageProps<'/chat/[id]'>;

export async function generateMetadata({ params }: Props): Promise<Metadata> {
  return { title: (await findSession((await params).id))?.title };
}

export default async function ChatPage({ params }: Props) {
  const session = await findSession((await params).id);
  if (!session) notFound();
  const messages = toChatMessages(await readMessages(session.id));
  return <ChatView key={session.id} id={session.id} title={session.title} messages={messages} />;
}
