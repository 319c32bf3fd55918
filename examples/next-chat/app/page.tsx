import { NewChat } from '@/components/new-chat';
import { agentName } from '@/lib/settings';

export default function NewChatPage() {
  return <NewChat agentName={agentName} />;
}
