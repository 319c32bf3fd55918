// A chat server in a process of its own, as an app has it, over `node:http`. Its first argument is JSON: the port (0: any)
// and the settings. What a test wants of a response stands in headers of the request, so that it is the same routes that all
// tests go through:
//   x-cut      the number of bytes of the body that still arrive
//   x-cut-how  what happens then: "lost", the connection is; "silent", it stays and nothing comes
//   x-through  "response": through `createRunResponse` in the place of `pipeRun`
//   x-options  JSON, more options of the stream
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { runs } from '../../helpers/under-test.mjs';

const { port, settings } = JSON.parse(process.argv[2]);
runs.configure(settings);

/** Has only so many bytes of the response arrive. */
function cut(response, bytes, how) {
  let left = bytes;
  const cutNow = () => {
    if (how === 'lost') response.socket?.destroySoon();
  };
  const { write, end } = response;
  response.write = (chunk) => {
    if (left === 0) return false;
    const part = chunk.subarray(0, left);
    left -= part.length;
    const wantsMore = write.call(response, part);
    if (left === 0) cutNow();
    return left > 0 && wantsMore;
  };
  response.end = (...args) => {
    if (left > 0) end.apply(response, args);
    return response;
  };
  if (left === 0) {
    const { flushHeaders } = response;
    response.flushHeaders = () => {
      flushHeaders.call(response);
      cutNow();
    };
  }
}

async function answer(sessionId, request, response) {
  const options = { protocol: 'ai-sdk', ...JSON.parse(request.headers['x-options'] ?? '{}') };
  if (request.headers['x-cut'] !== undefined) cut(response, Number(request.headers['x-cut']), request.headers['x-cut-how']);
  if (request.headers['x-through'] !== 'response') return runs.pipeRun(sessionId, response, options);
  const { status, headers, body } = runs.createRunResponse(sessionId, { ...options, request });
  response.writeHead(status, Object.fromEntries(headers));
  if (body === null) return response.end();
  response.flushHeaders();
  const bytes = Readable.fromWeb(body);
  response.on('close', () => bytes.destroy());
  bytes.on('error', () => response.destroy()).pipe(response);
}

function json(response, value, status = 200) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

async function bodyOf(request) {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk;
  return text;
}

/** How often a run was started. */
const started = new Map();
let stops = 0;

const routes = {
  'POST ': async (request, response) => {
    const { id, messages, agent, agentSessionId } = JSON.parse(await bodyOf(request));
    const { id: messageId, parts } = messages.at(-1);
    const text = parts.map((part) => part.text ?? '').join('');
    const before = runs.getActiveRun(id);
    try {
      const run = runs.startRun({
        sessionId: id,
        message: text,
        userMessage: { id: messageId, content: text, parts },
        agent,
        agentSessionId,
      });
      if (run !== null && run !== before) started.set(id, (started.get(id) ?? 0) + 1);
      if (run === null) return response.writeHead(204).end();
    } catch (error) {
      return json(response, { code: error.code }, error.code === 'RUN_ALREADY_ACTIVE' ? 409 : 500);
    }
    return answer(id, request, response);
  },
  'GET stream': (request, response, id) => answer(id, request, response),
  'POST stop': async (_request, response, id) => {
    stops += 1;
    const run = runs.getActiveRun(id);
    const aborted = runs.abortRun(id);
    // The next message is not refused.
    await run?.whenEnded;
    json(response, { aborted });
  },
  'GET messages': async (request, response, id) => json(response, await runs.readMessages(id, { format: 'ui' })),
  'GET stored': async (request, response, id) => json(response, await runs.readMessages(id)),
  'GET run': (_request, response, id) => {
    const run = runs.getActiveRun(id);
    json(response, { status: run?.status ?? null, end: run?.end ?? null, started: started.get(id) ?? 0, stops });
  },
  'POST emit': async (request, response, id) => {
    const chunk = JSON.parse(await bodyOf(request));
    json(response, { emitted: runs.getActiveRun(id).emit(chunk) });
  },
  'POST settings': async (request, response) => {
    runs.configure(JSON.parse(await bodyOf(request)));
    json(response, {});
  },
};

const server = createServer((request, response) => {
  const [, id = '', what = ''] = /^\/api\/chat(?:\/([^/?]+)\/(\w+))?$/.exec(request.url) ?? [];
  const route = routes[`${request.method} ${what}`];
  if (!route) return response.writeHead(404).end('There is no such route');
  Promise.resolve(route(request, response, decodeURIComponent(id))).catch((error) => {
    console.error(error);
    response.destroy();
  });
});
// A connection that is kept alive and closed by the server in the moment of the next request would be an error of the test's.
server.keepAliveTimeout = 0;
server.listen(port, '127.0.0.1', () => process.send({ port: server.address().port }));
process.on('disconnect', () => process.exit());
