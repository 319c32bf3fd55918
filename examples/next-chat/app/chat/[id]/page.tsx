import { hasActiveRun } from 'active-runs';
import type { Metadata } from 'next';
import { notFound } from 'next/navigation';
import { ChatView } from '@/components/chat-view';
import { findSession, readChat } from '@/lib/sessions';

type Props = PageProps<'/chat/[id]'>;

export async function generateMetadata({ params }: Props): Promise<Metadata> {
  return { title: (await findSession((await params).id))?.title };
}

export default async function ChatPage({ params }: Props) {
  const session = await findSession((await params).id);
  if (!session) notFound();
  const { id, title } = session;
  // First the run, then the store: an answer that ends in between is whole in the store.
  const isAnswering = hasActiveRun(id);
  const messages = await readChat(id);
  return <ChatView key={id} id={id} title={title} messages={messages} isAnswering={isAnswering} />;
}
