// Traps of WebAssembly come from faults in a handler of the engine.
const wasm = new Uint8Array([0,97,115,109,1,0,0,0,1,6,1,96,1,127,1,127,3,2,1,0,5,3,1,0,1,7,8,1,4,108,111,97,100,0,0,10,9,1,7,0,32,0,40,2,0,11]);
const load = new WebAssembly.Instance(new WebAssembly.Module(wasm)).exports.load;
let traps = 0;
for (let i = 0; i < 20000; i++) { try { load(i % 100 === 99 ? 1 << 20 : i * 2); } catch (e) { if (e instanceof WebAssembly.RuntimeError) traps++; } }
function deep() { return deep() + 1; }
let overflow = false;
try { deep(); } catch (e) { overflow = e instanceof RangeError; }
console.log("traps", traps, "overflow", overflow);
