// What the page can do beyond being read: sorting tables, filtering flipped images, unfolding everything for print.
"use strict";

function sortValue(row, index) {
  const cell = row.cells[index];
  const given = cell.dataset.sort;
  return given === undefined ? cell.textContent.trim() : Number(given);
}

function compareValues(a, b) {
  // Numbers before words, so that missing ones gather at one end.
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "number") return -1;
  if (typeof b === "number") return 1;
  return a.localeCompare(b);
}

function sortBy(table, header, index) {
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  rows.sort((a, b) => compareValues(sortValue(a, index), sortValue(b, index)) * (descending ? -1 : 1));
  body.append(...rows);
}

for (const table of document.querySelectorAll("table[data-sortable]")) {
  Array.from(table.tHead.rows[0].cells).forEach((header, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(table, header, index));
    header.append(button);
  });
}

for (const list of document.querySelectorAll(".flip-table")) {
  const cards = Array.from(list.querySelectorAll(".flip"));
  const kinds = [...new Set(cards.map((card) => card.dataset.kind))];
  const bar = document.createElement("div");
  bar.className = "filter";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Which flipped images to show");
  const said = document.createElement("p");
  said.setAttribute("role", "status");
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = "class or file";
  field.setAttribute("aria-label", "Show only images with this text");
  let chosen = "all";

  function show() {
    const text = field.value.toLowerCase();
    let count = 0;
    for (const card of cards) {
      const fits = (chosen === "all" || card.dataset.kind === chosen) && card.textContent.toLowerCase().includes(text);
      card.hidden = !fits;
      count += fits ? 1 : 0;
    }
    const filtered = chosen !== "all" || text !== "";
    for (const fold of filtered ? list.querySelectorAll("details") : []) fold.open = true;
    said.textContent = `${count} of ${cards.length} shown`;
  }

  for (const kind of ["all", ...kinds]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = kind;
    button.setAttribute("aria-pressed", String(kind === chosen));
    button.addEventListener("click", () => {
      chosen = kind;
      for (const other of bar.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      show();
    });
    bar.append(button);
  }
  field.addEventListener("input", show);
  bar.append(field, said);
  list.prepend(bar);
  show();
}

let folded = [];
window.addEventListener("beforeprint", () => {
  folded = Array.from(document.querySelectorAll("details:not([open])"));
  for (const one of folded) one.open = true;
});
window.addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});
