// All cases, in the order of the table. A case has an `id`, a `title`, `figures` (what it reports:
// key, label, unit, the bar for the addon) and `measure`, which runs in a fresh process for each
// implementation and returns the figures. A bar is `ratio` (of the addon's figure to the module's:
// `atMost` or `atLeast`) or `atMost` in the figure's own unit.
import { fanout, first, flood, floodStall, freed, memory } from './delivery.mjs';
import { http } from './http.mjs';
import { joining, readers, replay, replayBytes, returning } from './replay.mjs';
import { idle, quiet, startup, stop } from './start.mjs';
import { flush, longHistories, longHistoriesCpu, longUserMessage, manyHistories, manySessions, userMessage } from './store.mjs';
import { answers, histories, runs } from './scaling.mjs';

export const cases = [
  flood,
  floodStall,
  fanout,
  manyHistories,
  longHistories,
  longHistoriesCpu,
  userMessage,
  longUserMessage,
  manySessions,
  startup,
  stop,
  memory,
  freed,
  replay,
  replayBytes,
  readers,
  returning,
  joining,
  ...http,
  first,
  idle,
  flush,
  quiet,
  ...runs,
  ...histories,
  ...answers,
];
