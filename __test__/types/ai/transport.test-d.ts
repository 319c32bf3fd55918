// Checked by `npm run types`, never run: what this package makes is what the AI SDK takes, by its own types.
import type { ChatTransport, UIMessage } from "ai";
import { expectTypeOf } from "expect-type";
import { readMessages } from "active-runs";
import { RunChatTransport } from "active-runs/client";

type Message = UIMessage<{ model: string }, { weather: { degrees: number } }>;

new RunChatTransport() satisfies ChatTransport<UIMessage>;
new RunChatTransport<Message>() satisfies ChatTransport<Message>;
expectTypeOf(readMessages<Message>("s", { format: "ui" })).toEqualTypeOf<Promise<Message[]>>();
