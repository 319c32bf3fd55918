import Link from 'next/link';

export default function NotFound() {
  return (
    <div className="notice">
      <h1>No such chat</h1>
      <p>It may have been deleted, perhaps in another tab.</p>
      <Link href="/">Start a new one</Link>
    </div>
  );
}
