import byDefault, { startRun } from 'active-runs';
import * as runs from 'active-runs';
import { dropOpenParts } from 'active-runs/client';
import answer from './answer.cjs';

if (byDefault.startRun !== startRun) throw new Error('the default export is another one');
if (typeof dropOpenParts !== 'function') throw new Error('the part for the browser is missing');
console.log(await answer(runs));
