// What the page asks of the server. Every request brings its image; the answer is its own.

/** An answer that is an error: its line, and whether a smaller image would do. */
export class Refused extends Error {
  constructor(line, tooLarge = false) {
    super(line);
    this.tooLarge = tooLarge;
  }
}

const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });

/** The answer of `api/${path}` to an image: the header, with each part as bytes. */
export async function ask(path, image, signal, onWait = () => {}) {
  for (;;) {
    const response = await fetch(`api/${path}`, { method: "POST", body: image, signal }).catch((error) => {
      if (signal.aborted) throw error;
      throw new Refused("The server did not answer. Is it still running?");
    });
    if (response.ok) return unpacked(await response.arrayBuffer());
    const { error } = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
    if (response.status !== 503) throw new Refused(sentence(error), response.status === 413);
    onWait();
    await pause(Number(response.headers.get("retry-after") ?? 3) * (0.5 + Math.random()), signal);
  }
}

/** See `packed` in cfnseg/demo/answers.py. */
function unpacked(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  for (const [name, size] of Object.entries(header.parts_bytes)) {
    header[name] = new Uint8Array(buffer, at, size);
    at += size;
  }
  return header;
}

export const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");
