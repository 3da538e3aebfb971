// The picture: the photo, layers over it, and what lies under the pointer.

const SURE = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]]; // matplotlib's inferno
const FADED = 38; // of 255: the classes that are not looked at

/** Colours by percent of confidence, [r, g, b]: what is unsure glows. */
const percents = Array.from({ length: 101 }, (_, percent) => {
  const place = ((100 - percent) / 100) * (SURE.length - 1);
  const low = Math.min(Math.floor(place), SURE.length - 2);
  return SURE[low].map((value, k) => value + (place - low) * (SURE[low + 1][k] - value));
});

/** Draw bytes, one a pixel, by a table of [r, g, b] or [r, g, b, a]. */
function paint(canvas, bytes, [width, height], colors) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const table = new Uint8ClampedArray(4 * 256);
  colors.forEach(([r, g, b, a = 255], k) => table.set([r, g, b, a], 4 * k));
  const words = new Uint32Array(table.buffer);
  const pixels = new Uint32Array(image.data.buffer);
  for (let k = 0; k < bytes.length; k++) pixels[k] = words[bytes[k]];
  context.putImageData(image, 0, 0);
}

export class Picture {
  constructor(stage, scale) {
    this.stage = stage;
    this.photo = stage.querySelector(".photo");
    this.mark = stage.querySelector(".mark");
    this.layers = Object.fromEntries([...stage.querySelectorAll("canvas")].map((c) => [c.dataset.layer, c]));
    paint(scale, Uint8Array.from(percents.keys()).reverse(), [101, 1], percents);
  }

  /** Show a new answer of api/segment. */
  async show(answer, classes) {
    this.answer = answer;
    this.classes = classes;
    URL.revokeObjectURL(this.photo.src);
    this.photo.src = URL.createObjectURL(new Blob([answer.photo]));
    this.photo.classList.toggle("tiny", Math.max(...answer.view) < 200);
    await this.photo.decode();
    this.stage.style.setProperty("--ratio", answer.size[0] / answer.size[1]);
    this.only(null);
    paint(this.layers.confidence, answer.confidence, answer.view, percents);
    this.layers.branches.width = 0;
    this.mark.hidden = true;
  }

  /** Draw one class alone, or all: null. */
  only(index) {
    const colors = this.classes.map(({ color }, k) => [...color, index === null || k === index ? 255 : FADED]);
    paint(this.layers.classes, this.answer.ids, this.answer.view, colors);
  }

  /** Draw an answer of api/branches. Cells may reach over the image's edge. */
  showBranches({ deciding, size, stride, colors }) {
    const canvas = this.layers.branches;
    paint(canvas, deciding, size, colors);
    size.forEach((cells, k) => {
      canvas.style[k ? "height" : "width"] = `${(100 * cells * stride) / this.answer.size[k]}%`;
    });
  }

  /** Which layer lies over the photo, and how opaque, 0 to 1. */
  over(layer, opacity) {
    this.shown = layer;
    for (const [name, canvas] of Object.entries(this.layers)) canvas.classList.toggle("on", name === layer);
    this.stage.style.setProperty("--mix", opacity);
  }

  /** The pixel of the view under a pointer. */
  under(event) {
    const box = this.stage.getBoundingClientRect();
    const inside = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    return [
      inside((event.clientX - box.left) / box.width, this.answer.view[0]),
      inside((event.clientY - box.top) / box.height, this.answer.view[1]),
    ];
  }

  /** What is at a pixel of the view; x and y are those of the image that the view shows there. */
  at([across, down]) {
    const { size, view, ids, confidence } = this.answer;
    const [x, y] = [across, down].map((at, k) => Math.floor((at * size[k]) / view[k]));
    const k = down * view[0] + across;
    return { x, y, name: this.classes[ids[k]].name, index: ids[k], percent: confidence[k] };
  }

  /** Put the cross on a pixel of the view. */
  cross([across, down]) {
    this.place = [across, down];
    const [width, height] = this.answer.view;
    this.mark.style.left = `${(100 * (across + 0.5)) / width}%`;
    this.mark.style.top = `${(100 * (down + 0.5)) / height}%`;
    this.mark.hidden = false;
  }

  /** What one sees, as a JPEG of the view's size. */
  snapshot(opacity) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = this.answer.view;
    const context = canvas.getContext("2d");
    context.drawImage(this.photo, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.layers.classes, 0, 0);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  }
}
