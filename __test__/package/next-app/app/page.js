export default function Page() {
  return <p>An app that runs agents.</p>;
}
