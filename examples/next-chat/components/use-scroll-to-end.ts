import { useCallback, useEffect, useRef, useState } from 'react';

/**
 * Keeps the end of a growing list in view, until the reader scrolls away from it.
 *
 * `list` is what scrolls; `end` comes after the last item.
 */
export function useScrollToEnd() {
  const list = useRef<HTMLDivElement>(null);
  const end = useRef<HTMLDivElement>(null);
  const [isAtEnd, setAtEnd] = useState(true);
  const follows = useRef(true);

  const scrollToEnd = useCallback(() => {
    follows.current = true;
    end.current?.scrollIntoView({ block: 'end' });
  }, []);

  useEffect(() => {
    const scroller = list.current;
    if (!scroller?.firstElementChild) return;
    let lastTop = scroller.scrollTop;
    const onScroll = () => {
      const distance = scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop;
      // Only going up is the reader's doing; content that grows moves the end, not the view.
      if (scroller.scrollTop < lastTop) follows.current = false;
      if (distance < 48) follows.current = true;
      lastTop = scroller.scrollTop;
      setAtEnd(follows.current);
    };
    const growth = new ResizeObserver(() => {
      if (follows.current) scroller.scrollTop = scroller.scrollHeight;
    });
    growth.observe(scroller);
    growth.observe(scroller.firstElementChild);
    scroller.addEventListener('scroll', onScroll, { passive: true });
    return () => {
      growth.disconnect();
      scroller.removeEventListener('scroll', onScroll);
    };
  }, []);

  return { list, end, isAtEnd, scrollToEnd };
}
