'use strict';

// Stored messages of either form, and those of apps, as `UIMessage`s that `ai` 5, 6 and 7 take.

const ROLES = new Set(['system', 'user', 'assistant']);
/** Members that a part may have, and which of them are strings that it must have. */
const PARTS = {
  text: { needs: ['text'], may: ['state', 'providerMetadata'] },
  reasoning: { needs: ['text'], may: ['id', 'state', 'providerMetadata'] },
  file: { needs: ['mediaType', 'url'], may: ['filename', 'providerMetadata'] },
  'source-url': { needs: ['sourceId', 'url'], may: ['title', 'providerMetadata'] },
  'source-document': { needs: ['sourceId', 'mediaType', 'title'], may: ['filename', 'providerMetadata'] },
  'step-start': { needs: [], may: [] },
};
/** The members that are copied from a tool part, by its state. */
const TOOL_STATES = {
  'input-streaming': ['input', 'rawInput'],
  'input-available': ['input'],
  'output-available': ['input', 'output', 'preliminary'],
  'output-error': ['input', 'rawInput', 'errorText'],
};
const OPEN_STATES = new Set(['input-streaming', 'input-available']);
const INTERRUPTED = 'interrupted';
/** The text of an error that cannot be shown. */
const FAILED = 'Tool execution failed';

const isString = (value) => typeof value === 'string';
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const isProviderMetadata = (value) => isObject(value) && Object.values(value).every(isObject);

/**
 * Puts U+FFFD for each half of a surrogate pair, in keys, too, of a value that is the caller's own. Without recursion: agents
 * nest as deep as they like.
 */
function makeWellFormed(value) {
  const rest = [value];
  while (rest.length > 0) {
    const object = rest.pop();
    const keys = Object.keys(object);
    const values = keys.map((key) => object[key]);
    const areKeysWellFormed = keys.every((key) => key.isWellFormed());
    // Else the others would change their order.
    if (!areKeysWellFormed) for (const key of keys) delete object[key];
    keys.forEach((key, index) => {
      const member = values[index];
      const isHalf = isString(member) && !member.isWellFormed();
      if (isHalf || !areKeysWellFormed) setOwn(object, key.toWellFormed(), isHalf ? member.toWellFormed() : member);
      if (typeof member === 'object' && member !== null) rest.push(member);
    });
  }
  return value;
}

/** Gives the object a member of its own, also one with the name `__proto__`. */
function setOwn(object, key, value) {
  Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
}

function pick(part, names) {
  const picked = {};
  for (const name of names) if (part[name] !== undefined) picked[name] = part[name];
  return picked;
}

/** Removes optional members whose value the SDK would refuse. */
function withoutInvalidMembers(part) {
  if (part.state !== undefined && part.state !== 'streaming' && part.state !== 'done') delete part.state;
  for (const name of ['id', 'filename', 'title']) {
    if (part[name] !== undefined && !isString(part[name])) delete part[name];
  }
  if (!isProviderMetadata(part.providerMetadata)) delete part.providerMetadata;
  return part;
}

/** The module's tool part, whose result says how it ended. */
function ofModuleTool({ toolCallId, toolName, args, result, errorText }, isGrowing) {
  const part = { type: `tool-${isString(toolName) ? toolName : ''}`, toolCallId: isString(toolCallId) ? toolCallId : '' };
  const input = args ?? {};
  // It keeps the first error beside a later result.
  if (result !== undefined) return { ...part, state: 'output-available', input, output: result };
  if (errorText !== undefined) return { ...part, state: 'output-error', input, errorText: errorTextOf(errorText) };
  return isGrowing
    ? { ...part, state: 'input-available', input }
    : { ...part, state: 'output-error', input, errorText: INTERRUPTED };
}

function errorTextOf(error) {
  if (isString(error)) return error;
  try {
    return JSON.stringify(error);
  } catch {
    // It is nested deeper than that goes.
    return FAILED;
  }
}

/** The approval of a tool part whose state requires one; `undefined` where it is missing or does not fit the state. */
function ofApproval({ state, approval }) {
  if (!isObject(approval) || !isString(approval.id)) return undefined;
  const { id, approved, reason } = approval;
  if (state === 'approval-requested') return { id };
  const isAnswer = state === 'approval-responded' ? typeof approved === 'boolean' : state === 'output-denied' && approved === false;
  return isAnswer ? { id, approved, ...(isString(reason) && { reason }) } : undefined;
}

function ofTool(part, isGrowing) {
  const { type, toolCallId, toolName, state } = part;
  const isDynamic = type === 'dynamic-tool';
  if (!isString(toolCallId) || (isDynamic && !isString(toolName))) return undefined;
  const base = { type, ...(isDynamic && { toolName }), toolCallId };
  const isOpen = OPEN_STATES.has(state) || (state === 'output-available' && part.preliminary === true);
  if (isOpen && !isGrowing) {
    return { ...base, state: 'output-error', ...pick(part, ['input']), errorText: INTERRUPTED };
  }
  if (!Object.hasOwn(TOOL_STATES, state)) {
    const approval = ofApproval(part);
    // What this does not know is no state that all versions take; `ai` 5 has no approvals of dynamic tools.
    if (isDynamic || approval === undefined) return undefined;
    return { ...base, state, input: part.input ?? {}, approval };
  }
  const checked = { ...base, state, ...pick(part, TOOL_STATES[state]) };
  if (typeof checked.preliminary !== 'boolean') delete checked.preliminary;
  if (state !== 'input-streaming' && !('input' in checked)) checked.input = {};
  if (state === 'output-available' && !('output' in checked)) checked.output = null;
  if (state === 'output-error') checked.errorText = errorTextOf(part.errorText ?? INTERRUPTED);
  if (typeof part.providerExecuted === 'boolean') checked.providerExecuted = part.providerExecuted;
  // Some providers refuse a call that comes back without it.
  const { callProviderMetadata } = part;
  if (state !== 'input-streaming' && isProviderMetadata(callProviderMetadata)) {
    checked.callProviderMetadata = callProviderMetadata;
  }
  return checked;
}

/** The part as all versions take it; `undefined` for one that they refuse. */
function ofPart(part, isGrowing) {
  if (!isObject(part) || !isString(part.type)) return undefined;
  const { type } = part;
  if (type === 'tool-invocation' && part.state === undefined) return ofModuleTool(part, isGrowing);
  if (type === 'dynamic-tool' || type.startsWith('tool-')) return ofTool(part, isGrowing);
  if (type.startsWith('data-')) {
    return 'data' in part ? { type, ...(isString(part.id) && { id: part.id }), data: part.data } : undefined;
  }
  if (!Object.hasOwn(PARTS, type)) return undefined;
  const { needs, may } = PARTS[type];
  if (!needs.every((name) => isString(part[name]))) return undefined;
  const checked = withoutInvalidMembers(pick(part, ['type', ...needs, ...may]));
  if (checked.state === 'streaming' && !isGrowing) checked.state = 'done';
  return checked;
}

/** A stored message as a `UIMessage`; `undefined` for one that is none, as of a role that the SDK does not have. */
function toUiMessage(message) {
  const { id, role, content, parts, metadata } = message;
  if (!isString(id) || !ROLES.has(role)) return undefined;
  const isGrowing = message._streaming === true;
  const all = Array.isArray(parts) ? parts.map((part) => ofPart(part, isGrowing)) : [];
  const valid = all.filter((part) => part !== undefined);
  // A message has a part at least.
  if (valid.length === 0) valid.push({ type: 'text', text: isString(content) ? content : '' });
  return makeWellFormed({ id, role, ...(metadata !== undefined && metadata !== null && { metadata }), parts: valid });
}

module.exports = { toUiMessage };
