// Says a number every few milliseconds (its argument), until it is stopped.
let n = 0;
setInterval(() => {
  n += 1;
  process.stdout.write(`{"event":"agent","stream":"assistant","data":{"delta":"${n} "}}\n`);
}, Number(process.argv[2]));
