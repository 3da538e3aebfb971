"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// tables sort by the column of the heading that was pressed; scores start with the highest
for (const table of all("table.sortable")) {
  const heads = all("thead th", table), body = table.tBodies[0];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const now = head.getAttribute("aria-sort");
    const down = now ? now === "ascending" : column > 0;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => Number(row.cells[column].dataset.value);
    body.append(...[...body.rows].sort((a, b) => (down ? value(b) - value(a) : value(a) - value(b))));
  }));
}

for (const gallery of all(".gallery")) {
  const views = all(".views button", gallery), figures = all("figure", gallery);
  const show = (figure, view) => {
    figure.dataset.view = view;
    figure.querySelector("em").textContent = view;
  };
  for (const button of views) button.addEventListener("click", () => {
    gallery.dataset.view = button.dataset.view;
    views.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    figures.forEach((figure) => show(figure, button.dataset.view));
  });
  const order = views.map((button) => button.dataset.view);
  for (const figure of figures) figure.querySelector(".stack").addEventListener("click", () =>
    show(figure, order[(order.indexOf(figure.dataset.view) + 1) % order.length]));
  gallery.querySelector(".mix input").addEventListener("input", (event) =>
    gallery.style.setProperty("--mix", event.target.value / 100));
}

// a tap has no hover, so the cell's text is also written next to the matrix
for (const map of all(".heatmap")) for (const kind of ["pointerover", "click"]) map.addEventListener(kind, (event) => {
  const title = event.target.closest("g")?.querySelector("title");
  if (title) document.querySelector(".readout").textContent = title.textContent;
});

for (const section of all(".confusion")) {
  const modes = all(".views button", section);
  for (const button of modes) button.addEventListener("click", () => {
    section.dataset.mode = button.dataset.mode;
    modes.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
  });
}

// a box that scrolls sideways says so, and fades at the edge that hides columns
for (const box of all(".scroll")) {
  const hint = box.previousElementSibling;
  const mark = () => {
    hint.hidden = box.scrollWidth <= box.clientWidth + 1;
    box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
  };
  box.addEventListener("scroll", mark, {passive: true});
  mark();
  new ResizeObserver(mark).observe(box);
}
