// Two workers at once: buffers of many sizes outside the heap of JavaScript, compressed and expanded, and JSON. The
// engine's own threads free the buffers.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const zlib = require('zlib');

const scale = Number(process.env.BENCH_SCALE);

if (isMainThread) {
  const results = [];
  let left = 2;
  for (let index = 0; index < 2; index++) {
    const worker = new Worker(__filename, { workerData: index });
    worker.on('message', (result) => { results[index] = result; });
    worker.on('exit', () => { if (--left === 0) console.log(results.join(' ')); });
  }
} else {
  let state = 20051020 + workerData;
  const roll = (n) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >>> 16) % n;
  };
  const live = new Array(2000).fill(null);
  let total = 0;
  for (let turn = 0; turn < scale * 1200; turn++) {
    const buffer = Buffer.allocUnsafeSlow(16 + roll(1500));
    buffer.fill(turn & 255);
    const old = live[roll(live.length)];
    if (old !== null) total += old[0];
    live[roll(live.length)] = buffer;
    if (turn % 600 === 0) {
      const text = JSON.stringify(live.slice(0, 20).map((one) => (one === null ? 0 : one.length)));
      const packed = zlib.deflateSync(Buffer.concat([Buffer.from(text), buffer]));
      total += zlib.inflateSync(packed).length + JSON.parse(text).length;
    }
  }
  parentPort.postMessage(total);
}
