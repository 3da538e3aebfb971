// A photograph to a mask, by a file that cfnseg export wrote and onnxruntime-web.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

/** The model of an .onnx file: {session, labels: [{id, name, color: [r, g, b]}]}. */
export async function load(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${answer.statusText}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const about = JSON.parse(metadata(bytes).cfnseg);
  const labels = about.labels.labels.map(([id, name, color]) => ({id, name, color}));
  return {session: await ort.InferenceSession.create(bytes), labels};
}

/** Segment: pixels is an ImageData; {mask, confidence}, one entry a pixel, row by row. */
export async function segment(session, pixels) {
  const {width, height, data} = pixels;
  const rgb = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; from < data.length; from++) {  // RGBA to RGB
    rgb[to++] = data[from++];
    rgb[to++] = data[from++];
    rgb[to++] = data[from++];
  }
  const image = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
  const {mask, confidence} = await session.run({image}, ["mask", "confidence"]);
  return {mask: mask.data, confidence: confidence.data};
}

/** The metadata of an ONNX file, {key: value}: entries of field 14 of its protocol buffer. */
function metadata(bytes) {
  const text = new TextDecoder(), found = {};
  for (const [field, value] of fields(bytes)) {
    if (field !== 14) continue;
    const entry = Object.fromEntries(fields(value));
    found[text.decode(entry[1])] = text.decode(entry[2]);
  }
  return found;
}

/** The fields of a protocol buffer, [number, bytes]; of a number, undefined for its bytes. */
function* fields(bytes) {
  let at = 0;
  const number = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes[at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte & 128);
    return value;
  };
  while (at < bytes.length) {
    const key = number(), kind = key % 8;
    if (kind === 0) number();
    const size = {0: 0, 1: 8, 2: kind === 2 ? number() : 0, 5: 4}[kind];
    yield [Math.floor(key / 8), kind === 2 ? bytes.subarray(at, at + size) : undefined];
    at += size;
  }
}
