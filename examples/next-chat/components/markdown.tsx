'use client';

import type { ComponentProps, JSX } from 'react';
import { type Components, type ExtraProps, Streamdown } from 'streamdown';
import styles from './markdown.module.css';

/** The element alone: what Streamdown puts around it needs Tailwind. */
function plain<Tag extends 'a' | 'code' | 'pre' | 'table'>(Tag: Tag) {
  return function Plain({ node: _, ...props }: ComponentProps<Tag> & ExtraProps) {
    const Element = Tag as keyof JSX.IntrinsicElements as 'div';
    return <Element {...(props as ComponentProps<'div'>)} />;
  };
}

const COMPONENTS: Components = {
  code: plain('code'),
  pre: plain('pre'),
  table: plain('table'),
  a: ({ node: _, ...props }) => <a {...props} target="_blank" rel="noreferrer" />,
};

/** Markdown that may end anywhere: what is not closed yet is shown as if it were. */
export function Markdown({ text, isGrowing }: { text: string; isGrowing: boolean }) {
  return (
    <Streamdown className={styles.markdown} components={COMPONENTS} controls={false} isAnimating={isGrowing}>
      {text}
    </Streamdown>
  );
}
