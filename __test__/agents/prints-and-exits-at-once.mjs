// Says as many times (first argument) a delta of as many characters (second), and ends without waiting
// until anybody has read it.
const [count, size] = process.argv.slice(2).map(Number);
for (let n = 0; n < count; n += 1) {
  const delta = `${n} `.padEnd(size, 'x');
  process.stdout.write(`${JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta } })}\n`);
}
process.exit(0);
