import type { ReactNode } from 'react';

/** Drawn for 16 pixels in the colour of the text; whoever shows one names it. */
function Icon({ children }: { children: ReactNode }) {
  return (
    <svg
      viewBox="0 0 16 16"
      width="16"
      height="16"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.5"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      {children}
    </svg>
  );
}

export const PlusIcon = () => <Icon><path d="M8 3v10M3 8h10" /></Icon>;
export const MenuIcon = () => <Icon><path d="M2.5 4.5h11M2.5 8h11M2.5 11.5h11" /></Icon>;
export const BinIcon = () => <Icon><path d="M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.5 8.5h6l.5-8.5M6.9 7v3.5M9.1 7v3.5" /></Icon>;
export const SendIcon = () => <Icon><path d="M8 13V3.5M3.8 7.5 8 3.3l4.2 4.2" /></Icon>;
export const StopIcon = () => <Icon><rect x="4" y="4" width="8" height="8" rx="1.5" fill="currentColor" stroke="none" /></Icon>;
export const ChevronIcon = () => <Icon><path d="m6 3.5 4.5 4.5L6 12.5" /></Icon>;
export const ArrowIcon = () => <Icon><path d="M3 8h9.5M8.8 4.2 12.6 8l-3.8 3.8" /></Icon>;
export const DownIcon = () => <Icon><path d="M8 3v9.5M3.8 8.5 8 12.7l4.2-4.2" /></Icon>;
