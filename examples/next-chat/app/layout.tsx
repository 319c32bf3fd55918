import { hasActiveRun, listSessions } from 'active-runs';
import { GeistMono } from 'geist/font/mono';
import { GeistSans } from 'geist/font/sans';
import type { Metadata, Viewport } from 'next';
import { connection } from 'next/server';
import type { ReactNode } from 'react';
import { Sidebar } from '@/components/sidebar';
import './globals.css';

export const metadata: Metadata = { title: { default: 'Chat', template: '%s · Chat' } };

export const viewport: Viewport = {
  colorScheme: 'light dark',
  interactiveWidget: 'resizes-content',
};

export default async function RootLayout({ children }: { children: ReactNode }) {
  await connection(); // The list is read for each request.
  const chats = (await listSessions()).map(({ id, title, updatedAt }) => ({
    id,
    title,
    updatedAt,
    isAnswering: hasActiveRun(id),
  }));
  return (
    <html lang="en" className={`${GeistSans.variable} ${GeistMono.variable}`}>
      <body>
        <Sidebar chats={chats} />
        <main>{children}</main>
      </body>
    </html>
  );
}
