// The page: images are decoded by the browser, prepared by prepare.js, and run by onnxruntime-web in one thread.
const TOP = 5;
const COMPARED = 20; // images, at most, whose embeddings are compared: the last ones
const KEPT = 100; // images whose tensors are kept: those of a thousand would fill the memory
const page = (id) => document.getElementById(id);
const facts = JSON.parse(page("facts").textContent);
const { spec, task, labels, thresholds } = facts;
const results = [];
globalThis.results = results; // for whoever looks with the browser's tools

/** An element with attributes and children; text stays text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function say(text, wrong = false) {
  page("status").textContent = text;
  page("status").className = wrong ? "wrong" : "";
}

/** What the page carries gzipped, in base64; its text is given back to the browser. */
async function unpacked(id) {
  const text = atob(page(id).textContent);
  page(id).remove();
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// By EXIF orientation, how a bitmap of width w and height h is drawn (a matrix of CanvasRenderingContext2D).
const TURNS = [
  () => [1, 0, 0, 1, 0, 0], (w) => [-1, 0, 0, 1, w, 0], (w, h) => [-1, 0, 0, -1, w, h], (w, h) => [1, 0, 0, -1, 0, h],
  () => [0, 1, 1, 0, 0, 0], (w, h) => [0, 1, -1, 0, h, 0], (w, h) => [0, -1, -1, 0, h, w], (w) => [0, -1, 1, 0, 0, w],
];

/** The orientation, 1 to 8, in a WebP file's EXIF data: unlike those of JPEG and PNG, browsers leave it; else 0. */
async function orientationOfWebp(file) {
  const view = new DataView(await file.arrayBuffer());
  const word = (at) => String.fromCharCode(...new Uint8Array(view.buffer, at, 4));
  try {
    if (word(0) !== "RIFF" || word(8) !== "WEBP") return 0;
    for (let at = 12, size; ; at += 8 + size + (size % 2)) {
      size = view.getUint32(at + 4, true);
      if (word(at) !== "EXIF") continue;
      const start = at + (word(at + 8) === "Exif" ? 14 : 8);
      const little = word(start).startsWith("II");
      const tags = start + view.getUint32(start + 4, little) + 2;
      const found = Array.from({ length: view.getUint16(tags - 2, little) }, (_, i) => tags + 12 * i);
      const tag = found.find((one) => view.getUint16(one, little) === 0x0112);
      const told = tag && view.getUint16(tag + 8, little);
      return TURNS[told - 1] ? told : 0;
    }
  } catch (error) {
    if (error instanceof RangeError) return 0; // the file ends: it has none, or is damaged, and then says nothing
    throw error;
  }
}

/** An image file's pixels, RGBA: turned as its EXIF data says, its colours as stored, on white. */
async function decoded(file) {
  const turn = await orientationOfWebp(file);
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(file, { ...options, imageOrientation: turn ? "none" : "from-image" });
  const [width, height] = turn > 4 ? [bitmap.height, bitmap.width] : [bitmap.width, bitmap.height];
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingEnabled = false;
  context.setTransform(...TURNS[Math.max(turn, 1) - 1](bitmap.width, bitmap.height));
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

/** Probabilities of logits: of one class an image softmax, of several the sigmoid of each. */
function shares(logits) {
  if (task === "multilabel") return logits.map((one) => 1 / (1 + Math.exp(-one)));
  const most = Math.max(...logits);
  const powers = logits.map((one) => Math.exp(one - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((one) => one / sum);
}

async function run(session, prepared) {
  const type = spec.input === "uint8" ? "uint8" : "float32";
  const given = new ort.Tensor(type, prepared.tensor, prepared.dims);
  const found = await session.run({ [session.inputNames[0]]: given });
  return Array.from(found[session.outputNames[0]].data);
}

function picture({ pixels }) {
  const { size } = spec;
  const image = new ImageData(size, size);
  const grey = spec.mean.length === 1;
  for (let i = 0; i < size * size; i++) {
    for (let channel = 0; channel < 3; channel++) image.data[4 * i + channel] = pixels[grey ? i : 3 * i + channel];
    image.data[4 * i + 3] = 255;
  }
  const canvas = element("canvas", { width: size, height: size, role: "img", "aria-label": "the prepared image" });
  canvas.getContext("2d").putImageData(image, 0, 0);
  const caption = `What the network sees: ${size} × ${size} pixels`;
  return element("figure", {}, canvas, element("figcaption", {}, caption));
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function classes(logits) {
  const found = shares(logits);
  const order = found.map((_, k) => k).sort((a, b) => found[b] - found[a] || a - b);
  const several = task === "multilabel";
  const isGiven = (k) => (several ? found[k] > thresholds[k] : k === order[0]);
  const shown = order.filter((k, place) => place < TOP || isGiven(k));
  const rows = shown.map((k) => {
    const bar = element("div", { class: "bar" });
    bar.style.width = `${100 * found[k]}%`;
    const limit = several ? [element("td", { class: "number quiet" }, percent(thresholds[k]))] : [];
    const name = element("th", { scope: "row" }, labels[k], isGiven(k) && several ? " ✓" : "");
    const cells = [name, element("td", { class: "number" }, percent(found[k])), ...limit];
    const drawn = element("td", { "aria-hidden": "true" }, bar);
    return element("tr", isGiven(k) ? { class: "given" } : {}, ...cells, drawn);
  });
  const heads = ["Class", "Confidence", ...(several ? ["Threshold"] : [])].map((name, place) =>
    element("th", { scope: "col", class: place ? "number" : "" }, name),
  );
  const head = element("thead", {}, element("tr", {}, ...heads, element("td")));
  const table = element("table", { class: "classes" }, head, element("tbody", {}, ...rows));
  if (!several || shown.some(isGiven)) return [table];
  return [element("p", { class: "quiet" }, "No class is above its threshold."), table];
}

/** A table with the cosine of every two images: their dot product, for embeddings have length 1. */
function compare() {
  const seen = results.filter((one) => one.logits).slice(-COMPARED);
  page("similar").hidden = task !== "embedding" || seen.length < 2;
  if (page("similar").hidden) return;
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const head = seen.map((one, i) => element("th", { scope: "col", class: "number" }, `${i + 1}`));
  const rows = seen.map((one, i) => {
    const cells = seen.map((other) => element("td", { class: "number" }, dot(one.logits, other.logits).toFixed(3)));
    return element("tr", {}, element("th", { scope: "row" }, `${i + 1}. ${one.name}`), ...cells);
  });
  const caption = element("caption", { class: "quiet" }, `Cosine similarity of the last ${seen.length} images; 1 is the same direction`);
  const top = element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Image"), ...head));
  page("similar").replaceChildren(element("table", {}, caption, top, element("tbody", {}, ...rows)));
}

/** Look at one image, and add what was found, or why nothing was. */
async function look(session, file) {
  const item = element("li");
  const result = { name: file.name };
  try {
    const began = performance.now();
    let image;
    try {
      image = await decoded(file);
    } catch {
      throw new Error("This browser cannot read the file as an image. Try a PNG or JPEG file.");
    }
    const prepared = prepare(image, spec);
    const ready = performance.now();
    const logits = await run(session, prepared);
    const ended = performance.now();
    if (!logits.every(Number.isFinite)) throw new Error("The network gave something other than numbers.");
    Object.assign(result, prepared, { logits, prepareMs: ready - began, runMs: ended - ready });
    const size = `${image.width} × ${image.height} pixels`;
    const times = `${size}, read and prepared in ${(ready - began).toFixed(0)} ms; network ${(ended - ready).toFixed(0)} ms`;
    const found = task === "embedding" ? [`An embedding of ${logits.length} numbers.`] : classes(logits);
    const name = element("h2", {}, file.name);
    item.append(
      picture(prepared),
      element("div", {}, name, element("p", { class: "times" }, times)),
      element("div", {}, ...found),
    );
  } catch (error) {
    item.append(element("div", {}, element("h2", {}, file.name), element("p", { class: "wrong" }, error.message)));
  }
  results.push(result);
  const old = results.at(-KEPT - 1);
  if (old) delete old.tensor, delete old.pixels;
  page("results").prepend(item);
  compare();
  await new Promise((resume) => setTimeout(resume)); // the browser draws between two images
}

function describe(loaded) {
  for (const [name, value] of [...facts.about, ["Loaded in", `${(loaded / 1000).toFixed(1)} s, with a first run`]]) {
    page("about").append(element("dt", {}, name), element("dd", {}, value));
  }
}

async function start() {
  const began = performance.now();
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await unpacked("wasm");
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(await unpacked("network"));
  await run(session, prepare(new ImageData(spec.size, spec.size), spec)); // the first run of all is slower
  describe(performance.now() - began);
  let busy = Promise.resolve();
  const add = (files) => {
    for (const [i, file] of [...files].entries()) {
      busy = busy.then(() => (say(`Image ${i + 1} of ${files.length}: ${file.name} …`), look(session, file)));
    }
    const several = files.length === 1 ? "1 image" : `${files.length} images`;
    busy = busy.then(() => say(`Done with ${several}.`));
  };
  const [drop, files] = [page("drop"), page("files")];
  files.disabled = false;
  files.addEventListener("change", () => {
    add([...files.files]);
    files.value = ""; // so that the same file may be chosen again
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault(); // else the browser would open the image instead of this page
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") add([...event.dataTransfer.files]);
    });
  }
  say("Ready.");
}

start().catch((error) => say(`The network could not be loaded (${error.message}). Use a current browser.`, true));
