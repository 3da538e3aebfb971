// The page: choose an image, show the answer, ask for the branches at a pixel.

import { hasCamera, takePicture } from "./camera.js";
import { legend, make, percent, rgb, swatch, why } from "./panels.js";
import { Picture } from "./picture.js";
import { ask, Refused, sentence } from "./server.js";

const LAYER = { overlay: "classes", mask: "classes", confidence: "confidence", branches: "branches" };
const SMALLER = 1600; // longest side of the copy that is offered in place of a large image
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const $ = (id) => document.getElementById(id);
const model = await (await fetch("api/model")).json();
const picture = new Picture($("stage"), $("scale").querySelector("canvas"));
const strength = { overlay: 0.55, mask: 1, confidence: 0.9, branches: 0.75 };
let view = "overlay";
let image = null; // of the answer that is shown: {blob, name}
let work = new AbortController(); // ends what is asked about an earlier image
let question = new AbortController(); // ends what is asked about an earlier pixel

/** Show what is going on, with the seconds since, until the returned function is called. */
function waiting(element, what) {
  const start = Date.now();
  const say = () => (element.textContent = `${what()} ${Math.floor((Date.now() - start) / 1000)} s`);
  say();
  const timer = setInterval(say, 250);
  return () => clearInterval(timer);
}

function alertLine(line, remedy, act) {
  const [text, button] = $("alert").children;
  $("alert").hidden = !line;
  text.textContent = line ?? "";
  button.hidden = !remedy;
  button.textContent = remedy ?? "";
  button.onclick = act;
}

/** Segment an image and show the answer; `name` is a file's. */
async function segment(blob, name) {
  work.abort();
  question.abort();
  const mine = (work = new AbortController());
  alertLine(null);
  const smaller = () => shrunk(blob).then((copy) => segment(copy, name), () => alertLine("The browser cannot read this image."));
  if (blob.size > model.bytes) {
    const [size, most] = [blob.size, model.bytes].map((n) => (n / 2 ** 20).toFixed(0));
    return alertLine(`The file has ${size} MiB; at most ${most} are taken.`, `Send it at ${SMALLER} px`, smaller);
  }
  $("busy").hidden = false;
  let what = "Segmenting…";
  const done = waiting($("busy").lastElementChild, () => what);
  try {
    const answer = await ask("segment", blob, mine.signal, () => (what = "Others come first; trying again…"));
    if (mine.signal.aborted) return;
    image = { blob, name };
    await show(answer, smaller);
  } catch (error) {
    if (mine.signal.aborted) return;
    if (!(error instanceof Refused)) throw error;
    alertLine(error.message, error.tooLarge && `Send it at ${SMALLER} px`, smaller);
  } finally {
    done();
    if (work === mine) $("busy").hidden = true;
  }
}

async function show(answer, smaller) {
  $("result").hidden = false;
  $("main").dataset.state = "result";
  await picture.show(answer, model.classes);
  legend($("legend"), answer, model.classes, (index) => {
    picture.only(index);
    if (LAYER[view] !== "classes") choose("overlay");
  });
  const [width, height] = answer.size;
  const stem = image.name.replace(/\.[^.]*$/, "");
  URL.revokeObjectURL($("save-mask").href);
  $("save-mask").href = URL.createObjectURL(new Blob([answer.mask], { type: "image/png" }));
  $("save-mask").download = `${stem}_mask.png`;
  $("save-mask").title = `palette PNG of class ids, ${width} × ${height} px`;
  $("save-overlay").title = `JPEG as it is shown, ${answer.view.join(" × ")} px`;
  $("facts").replaceChildren(`${width} × ${height} px in ${answer.seconds} s on ${model.device}. `);
  if (Math.max(width, height) > SMALLER)
    $("facts").append(make("button", { className: "again", type: "button", onclick: smaller, textContent: `Again at ${SMALLER} px` }));
  const told = answer.classes.slice(0, 4).map(([c, n]) => `${model.classes[c].name} ${percent(n / (width * height))}`);
  $("stage").setAttribute("aria-label", `Segmented image: ${told.join(", ")}`);
  $("pointed").textContent = "";
  $("why").replaceChildren(make("p", { className: "note", textContent: model.why_not
    ? sentence(`these weights show no branches: ${model.why_not}`)
    : "Click on a pixel: this is where it shows what each side branch adds to the decision there." }));
  if (view === "branches") choose("overlay");
  choose(view);
}

/** Lay a view over the photo. */
function choose(name) {
  view = name;
  for (const button of $("views").children) button.setAttribute("aria-pressed", String(button.dataset.view === name));
  $("mix").style.visibility = name === "mask" ? "hidden" : "visible";
  $("mix").querySelector("input").value = 100 * strength[name];
  $("scale").hidden = name !== "confidence";
  $("shares").hidden = name !== "branches";
  picture.over(LAYER[name], strength[name]);
  if (name === "branches" && !picture.layers.branches.width) branches();
}

async function branches() {
  const mine = work;
  picture.layers.branches.width = 1; // asked for
  const done = waiting($("shares"), () => "Splitting the logits…");
  try {
    const answer = await ask("branches", image.blob, mine.signal);
    picture.showBranches(answer);
    done();
    $("shares").replaceChildren(...answer.names.map((name, k) =>
      make("span", {}, swatch(answer.colors[k]), `${name} ${percent(answer.shares[k])}`)));
  } catch (error) {
    if (mine.signal.aborted) return;
    picture.layers.branches.width = 0;
    $("shares").textContent = error.message;
  } finally {
    done();
  }
}

/** What each branch adds at a pixel of the view. */
async function explain(place) {
  picture.cross(place);
  read(place);
  if (model.why_not) return;
  question.abort();
  const mine = (question = new AbortController());
  const { x, y } = picture.at(place);
  const line = make("p", { className: "note" });
  $("why").replaceChildren(line);
  const done = waiting(line, () => `Splitting the logits at (${x}, ${y})…`);
  try {
    const answer = await ask(`pixel?x=${x}&y=${y}`, image.blob, AbortSignal.any([mine.signal, work.signal]));
    why($("why"), answer, model.classes, { x, y });
    $("why").scrollIntoView({ block: "nearest", behavior: "smooth" });
  } catch (error) {
    if (!mine.signal.aborted && !work.signal.aborted) line.textContent = error.message;
  } finally {
    done();
  }
}

function read(place) {
  const { x, y, name, index, percent: sure } = picture.at(place);
  $("pointed").replaceChildren(swatch(model.classes[index].color), make("b", { textContent: name }), ` ${sure} % sure, at (${x}, ${y})`);
}

/** A copy of an image, upright, as a JPEG whose longest side has SMALLER pixels. */
async function shrunk(blob) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, SMALLER / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height].map((n) => Math.max(1, Math.round(n * scale)));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

async function camera() {
  if (!hasCamera()) {
    if (matchMedia("(pointer: coarse)").matches) return $("snap").click(); // a phone's own camera
    return alertLine("The browser opens a camera over https or at 127.0.0.1 alone. Choose a file.");
  }
  try {
    const taken = await takePicture();
    if (taken) await segment(taken, "camera.jpg");
  } catch (error) {
    alertLine(`The camera cannot be used (${error.message || error.name}).`);
  }
}

$("about").append(
  make("span", {}, "weights ", make("b", { textContent: model.name })),
  ...(model.data ? [make("span", {}, "trained on ", make("b", { textContent: model.data }))] : []),
  make("span", {}, `${model.classes.length} classes`));
if (matchMedia("(pointer: coarse)").matches) $("invite").textContent = "Choose a picture, or take one";
$("limits").textContent = `JPEG, PNG, WebP, BMP or TIFF, up to ${model.bytes / 2 ** 20} MiB`;
if (!model.drawn) $("drawn").textContent = "or a drawn scene, which these weights do not know";
$("thumbs").append(...Array.from({ length: model.examples }, (_, k) => {
  const address = `examples/${k}.png`;
  const thumb = make("button", { type: "button" }, make("img", { src: address, alt: `Example ${k + 1}: a drawn scene of shapes` }));
  thumb.addEventListener("click", async () => segment(await (await fetch(address)).blob(), `example${k + 1}.png`));
  return thumb;
}));
if (model.why_not) $("views").querySelector("[data-view=branches]").remove();

$("pick").addEventListener("click", () => $("file").click());
$("shoot").addEventListener("click", camera);
for (const input of [$("file"), $("snap")])
  input.addEventListener("change", () => {
    const [file] = input.files;
    if (file) segment(file, file.name);
    input.value = ""; // the same file may be chosen again
  });
addEventListener("dragover", (event) => (event.preventDefault(), document.body.classList.add("over")));
addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) segment(file, file.name);
  else alertLine("That is no file. Drop an image file.");
});
addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) segment(file, file.name);
});
$("views").addEventListener("click", (event) => event.target.dataset.view && choose(event.target.dataset.view));
$("mix").addEventListener("input", (event) => {
  strength[view] = event.target.value / 100;
  picture.over(LAYER[view], strength[view]);
});
$("stage").addEventListener("pointermove", (event) => event.pointerType !== "touch" && read(picture.under(event)));
$("stage").addEventListener("click", (event) => explain(picture.under(event)));
$("stage").addEventListener("keydown", (event) => {
  const [width, height] = picture.answer.view;
  const [x, y] = picture.mark.hidden ? [width >> 1, height >> 1] : picture.place;
  if (event.key === "Enter") return explain([x, y]);
  const step = KEYS[event.key];
  if (!step) return;
  event.preventDefault();
  const far = event.shiftKey ? 10 : 1;
  const place = [
    Math.min(width - 1, Math.max(0, x + far * step[0])),
    Math.min(height - 1, Math.max(0, y + far * step[1])),
  ];
  picture.cross(place);
  read(place);
});
$("save-overlay").addEventListener("click", async (event) => {
  event.preventDefault();
  const address = URL.createObjectURL(await picture.snapshot(strength.overlay));
  make("a", { href: address, download: `${image.name.replace(/\.[^.]*$/, "")}_overlay.jpg` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
});
