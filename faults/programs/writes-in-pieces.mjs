// Writes the file of its first argument to stdout in pieces of as many bytes as its second says, each
// with a write of its own.
import { readFileSync, writeSync } from 'node:fs';

const bytes = readFileSync(process.argv[2]);
const size = Number(process.argv[3]);
for (let at = 0; at < bytes.length; ) {
  try {
    at += writeSync(1, bytes, at, Math.min(size, bytes.length - at));
  } catch (error) {
    if (error.code !== 'EAGAIN') throw error;
  }
}
