// Says its arguments, a delta each, and ends.
for (const delta of process.argv.slice(2)) {
  process.stdout.write(`${JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta } })}\n`);
}
