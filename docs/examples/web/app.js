// The page: takes a photograph, shows its mask over it and each class's share.
import {load, segment} from "./segment.js";

const [photo, opacity, state, canvas, legend] =
  ["photo", "opacity", "state", "picture", "legend"].map((id) => document.getElementById(id));
const draw = canvas.getContext("2d", {willReadFrequently: true});
let model, shown;

photo.addEventListener("change", () => photo.files[0] && open(photo.files[0]));
opacity.addEventListener("input", () => shown && show());

try {
  model = await load("model.onnx");
  photo.disabled = false;
  state.textContent = "Choose a photograph. It stays on this computer.";
} catch (error) {
  state.textContent = `The model could not be loaded: ${error.message}`;
}

async function open(file) {
  state.textContent = `${file.name} …`;
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    state.textContent = `${file.name} is no image that this browser reads.`;
    return;
  }
  [canvas.width, canvas.height] = [image.width, image.height];
  draw.drawImage(image, 0, 0);
  const pixels = draw.getImageData(0, 0, image.width, image.height);
  const begun = performance.now();
  try {
    shown = {pixels, ...await segment(model.session, pixels)};
  } catch (error) {
    state.textContent = `${file.name}: ${error.message}`;
    return;
  }
  show();
  const seconds = (performance.now() - begun) / 1000;
  state.textContent = `${image.width} × ${image.height} pixels in ${seconds.toFixed(2)} s`;
}

function show() {
  const {pixels, mask} = shown, share = Number(opacity.value);
  const mixed = new ImageData(new Uint8ClampedArray(pixels.data), pixels.width);
  const counts = model.labels.map(() => 0);
  mask.forEach((k, i) => {
    counts[k]++;
    for (let c = 0; c < 3; c++) {
      const at = 4 * i + c;
      mixed.data[at] += share * (model.labels[k].color[c] - mixed.data[at]);
    }
  });
  draw.putImageData(mixed, 0, 0);
  const order = [...counts.keys()].filter((k) => counts[k]).sort((a, b) => counts[b] - counts[a]);
  legend.replaceChildren(...order.map((k) => {
    const row = document.createElement("li"), patch = document.createElement("i");
    patch.style.background = `rgb(${model.labels[k].color})`;
    row.append(patch, `${model.labels[k].name} ${(100 * counts[k] / mask.length).toFixed(1)} %`);
    row.dataset.pixels = counts[k];
    return row;
  }));
}
