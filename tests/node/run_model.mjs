// Runs one ONNX model once and saves its outputs.
// Usage: node run_model.mjs (node|web) MODEL.onnx FEEDS.json FOLDER
// FEEDS.json: {"seed": {"dtype": "int64", "shape": [2], "data": ["1", "2"]}, ...}; int64 may be text, to stay exact.
// FOLDER/NAME.bin: the raw bytes of the output NAME, little-endian, row by row.
// Stdout: one JSON line with the shape and dtype of each output, the runtime and its version.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

const USAGE = "usage: node run_model.mjs (node|web) MODEL.onnx FEEDS.json FOLDER";

function exactInt64(value) {
  if (typeof value === "number" && !Number.isSafeInteger(value)) {
    throw new RangeError(`${value} is not an exact integer; write int64 values beyond 2^53 - 1 as strings`);
  }
  return BigInt(value);
}

const TO_TYPED_ARRAY = {
  int64: (data) => BigInt64Array.from(data, exactInt64),
  int32: (data) => Int32Array.from(data),
  float32: (data) => Float32Array.from(data),
  bool: (data) => Uint8Array.from(data, Number),
  uint8: (data) => Uint8Array.from(data),
};

async function loadRuntime(runtime) {
  if (runtime === "node") {
    // A CommonJS package: its exports arrive under `default`.
    const { default: ort } = await import("onnxruntime-node");
    return { ort, provider: "cpu" };
  }
  if (runtime === "web") {
    // Not plain "onnxruntime-web": under Node that name leads to another build. This one finds its .wasm beside itself.
    const ort = await import("onnxruntime-web/wasm");
    ort.env.wasm.numThreads = 1; // no worker threads, so nothing keeps the process alive
    return { ort, provider: "wasm" };
  }
  throw new Error(`unknown runtime "${runtime}"; ${USAGE}`);
}

function toTensor(ort, name, { dtype, shape, data }) {
  const convert = TO_TYPED_ARRAY[dtype];
  if (!convert) {
    throw new TypeError(`input "${name}": dtype "${dtype}" is none of ${Object.keys(TO_TYPED_ARRAY).join(", ")}`);
  }
  return new ort.Tensor(dtype, convert(data), shape);
}

async function save(folder, name, { data, dims, type }) {
  if (!ArrayBuffer.isView(data)) {
    throw new TypeError(`${name} has dtype "${type}", which has no raw bytes`);
  }
  await writeFile(join(folder, `${name}.bin`), new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return [name, { shape: dims, dtype: type }];
}

async function runModel(runtime, modelPath, feedsPath, folder) {
  const { ort, provider } = await loadRuntime(runtime);
  const [model, feedsText] = await Promise.all([readFile(modelPath), readFile(feedsPath, "utf8")]);
  const feeds = Object.fromEntries(
    Object.entries(JSON.parse(feedsText)).map(([name, feed]) => [name, toTensor(ort, name, feed)]),
  );
  const session = await ort.InferenceSession.create(model, { executionProviders: [provider], logSeverityLevel: 3 });
  const unknown = Object.keys(feeds).filter((name) => !session.inputNames.includes(name));
  if (unknown.length > 0) {
    // onnxruntime-node would ignore them without a word.
    throw new Error(`the model has no input ${unknown.join(", ")}; its inputs are ${session.inputNames.join(", ")}`);
  }
  const made = Object.entries(await session.run(feeds));
  const outputs = Object.fromEntries(await Promise.all(made.map(([name, tensor]) => save(folder, name, tensor))));
  await session.release();
  return { outputs, runtime, version: ort.env.versions[runtime] };
}

try {
  if (process.argv.length !== 6) {
    throw new Error(USAGE);
  }
  const report = await runModel(...process.argv.slice(2));
  // Leave explicitly, once the line is out: a handle that a runtime keeps open must not hold the process.
  process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
} catch (error) {
  process.stderr.write(`${error?.message ?? error}\n`, () => process.exit(1));
}
