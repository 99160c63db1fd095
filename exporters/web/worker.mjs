// Runs an ONNX file in onnxruntime-web for another process: node worker.mjs ort.mjs ort.wasm MODEL.
//
// A request on standard input is a header of three uint32, the machine's byte order: images B, bytes that follow, and
// whether these are uint8 (1) or float32 (0); an answer on standard output is int32 N and N bytes of float32 logits
// [B, K], or, of an error, -N and its words in UTF-8. The first answer, with N = 0, comes when the model is loaded.
import { readFileSync, readSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";

console.log = console.info = console.error; // standard output has answers alone
const [library, wasm, model] = process.argv.slice(2);

function read(bytes) {
  const buffer = new Uint8Array(bytes);
  for (let at = 0, got; at < bytes; at += got) {
    got = readSync(0, buffer, at, bytes - at);
    if (got === 0) process.exit(0); // whoever asked is gone
  }
  return buffer.buffer;
}

function answer(bytes, sign = 1) {
  for (const part of [new Uint8Array(Int32Array.of(sign * bytes.length).buffer), bytes]) {
    for (let at = 0; at < part.length; ) at += writeSync(1, part, at);
  }
}

const failed = (error) => answer(new TextEncoder().encode(String(error.message || "it failed without a word")), -1);

try {
  const ort = await import(pathToFileURL(library).href);
  ort.env.wasm.numThreads = 1; // what a page opened as a file has
  ort.env.wasm.wasmBinary = readFileSync(wasm);
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(readFileSync(model));
  const shape = session.inputMetadata[0].shape.slice(1);
  answer(new Uint8Array(0));
  for (;;) {
    const [images, bytes, pixels] = new Uint32Array(read(12));
    const given = read(bytes);
    try {
      const data = pixels ? new Uint8Array(given) : new Float32Array(given);
      const tensor = new ort.Tensor(pixels ? "uint8" : "float32", data, [images, ...shape]);
      const { data: logits } = (await session.run({ [session.inputNames[0]]: tensor }))[session.outputNames[0]];
      answer(new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength));
    } catch (error) {
      failed(error);
    }
  }
} catch (error) {
  failed(error);
}
