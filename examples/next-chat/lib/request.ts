/**
 * Whether a request's body is called JSON. A page of another site can have a browser post plain text to this server, and
 * so set an agent to work; JSON it can post only where the server allows it, and this one does not.
 */
export function isJson(request: Request) {
  return request.headers.get('content-type')?.split(';', 1)[0] === 'application/json';
}

export const notJson = () => new Response('The body must be application/json', { status: 415 });
