import byDefault, { startRun } from 'active-runs';
import * as runs from 'active-runs';
import answer from './answer.cjs';

if (byDefault.startRun !== startRun) throw new Error('the default export is another one');
console.log(await answer(runs));
