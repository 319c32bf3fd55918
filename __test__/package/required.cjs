const runs = require('active-runs');
const answer = require('./answer.cjs');

answer(runs).then((text) => console.log(text));
