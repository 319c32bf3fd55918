// Says its arguments, a delta each, and then waits to be stopped.
for (const delta of process.argv.slice(2)) {
  process.stdout.write(`${JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta } })}\n`);
}
setInterval(() => {}, 1 << 30);
