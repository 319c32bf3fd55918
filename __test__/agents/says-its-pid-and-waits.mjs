// Says its process number and waits to be stopped.
const delta = `pid ${process.pid};`;
process.stdout.write(`${JSON.stringify({ event: 'agent', stream: 'assistant', data: { delta } })}\n`);
setInterval(() => {}, 1 << 30);
