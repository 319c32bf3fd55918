// Chance that can be had again: the same for the same seed and name.

/** Given by `npm run test:faults -- --seed N`, and printed by it. */
export const seed = Number(process.env.FAULTS_SEED ?? 1);

export function chance(name) {
  let state = seed >>> 0;
  for (const char of name) state = (Math.imul(state, 31) + char.codePointAt(0)) >>> 0;
  // Mulberry32.
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit) => Math.floor(next() * limit);
  return { below, pick: (from) => from[below(from.length)] };
}
