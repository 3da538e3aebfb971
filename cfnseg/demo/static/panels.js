// The legend, and the table of the branches' parts at a pixel.

export const make = (name, options = {}, ...children) => {
  const { style = {}, data = {}, ...rest } = options;
  const element = Object.assign(document.createElement(name), rest);
  for (const [key, value] of Object.entries(style)) element.style.setProperty(key, value);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
};
export const rgb = (color) => `rgb(${color.join(",")})`;
export const swatch = (color) => make("i", { className: "swatch", style: { background: rgb(color) } });
const plain = (value) => (value <= -0.005 ? "−" : "") + Math.abs(value).toFixed(2);
const signed = (value) => (value >= 0.005 ? "+" : "") + plain(value);
export const percent = (share) => (share > 0 && share < 0.0005 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`);

/** A button for each class; `choose(index or null)` as one is pressed. */
export function legend(list, answer, classes, choose) {
  const total = answer.size[0] * answer.size[1];
  const most = answer.classes[0][1];
  const rows = answer.classes.map(([index, pixels, sure]) => {
    const { name, color } = classes[index];
    const level = make("span", { className: "level" },
      make("i", { style: { width: `${(100 * pixels) / most}%`, background: rgb(color) } }));
    const button = make("button", { type: "button", data: { index } }, swatch(color),
      make("span", { className: "name", textContent: name }),
      make("span", { className: "share", textContent: percent(pixels / total) }),
      make("span", { className: "sure", textContent: `${Math.round(100 * sure)} %`, title: "mean confidence" }),
      level);
    button.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-label",
      `${name}: ${percent(pixels / total)} of the pixels, mean confidence ${Math.round(100 * sure)} percent`);
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") === "false";
      for (const row of rows) row.setAttribute("aria-pressed", String(on && row === button));
      choose(on ? index : null);
    });
    return button;
  });
  list.replaceChildren(...rows.map((row) => make("li", {}, row)));
}

/** The parts of a pixel's class against another class, the runner-up at first. */
export function why(box, { names, colors, parts }, classes, { x, y }) {
  const logits = classes.map((_, c) => parts.reduce((sum, part) => sum + part[c], 0));
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]);
  const best = order[0];
  const rivals = make("select", { ariaLabel: "compared with" },
    ...order.slice(1).map((c) => make("option", { value: c, textContent: classes[c].name })));
  const draw = () => {
    const other = Number(rivals.value);
    const gaps = parts.map((part) => part[best] - part[other]);
    const margin = logits[best] - logits[other];
    const top = gaps.indexOf(Math.max(...gaps));
    const low = Math.min(0, margin, ...gaps);
    const high = Math.max(0, margin, ...gaps);
    const row = (label, color, gap, a, b, className) => make("tr", { className },
      make("th", { scope: "row" }, make("div", { className: "part" },
        make("span", { textContent: label }),
        make("div", { className: "chart", style: { "--zero": `${(100 * -low) / (high - low)}%` } },
          make("i", { style: {
            left: `${(100 * (Math.min(0, gap) - low)) / (high - low)}%`,
            width: `${(100 * Math.abs(gap)) / (high - low)}%`,
            ...(color && { background: rgb(color) }),
          } })))),
      ...[signed(gap), plain(a), plain(b)].map((text) => make("td", { textContent: text })));
    const against = gaps.filter((gap) => gap < 0).length;
    box.querySelector(".says").replaceChildren(
      make("b", { textContent: names[top] }),
      ` speaks loudest for ${classes[best].name}: ${signed(gaps[top])} of a margin of ${plain(margin)} over ` +
      `${classes[other].name}. ` +
      (against ? `${against} of ${gaps.length} parts speak for ${classes[other].name}.` : "No part speaks against it."));
    box.querySelector("tbody").replaceChildren(
      ...parts.map((part, s) => row(names[s], colors[s], gaps[s], part[best], part[other], s === top ? "most" : "")),
      row("sum = logit", null, margin, logits[best], logits[other], "sum"));
  };
  const heading = (...children) => make("th", { scope: "col" }, ...children);
  const table = make("table", { className: "parts" },
    make("thead", {}, make("tr", {}, heading("branch"), heading("margin"), heading(make("span", { className: "rival" }, swatch(classes[best].color), classes[best].name)), heading(rivals))),
    make("tbody"));
  box.replaceChildren(make("h2", { textContent: `Why ${classes[best].name} at (${x}, ${y})?` }),
    make("p", { className: "says" }), table,
    make("p", { className: "note", textContent:
      "Exact: what each side branch adds to the two logits; the columns sum to them. Numbers are rounded." }));
  rivals.addEventListener("change", draw);
  draw();
}
