"use strict";
const facts = JSON.parse(document.getElementById("facts").textContent);
const box = document.getElementById("provenance");
const put = (parent, tag, text) => { const made = parent.appendChild(document.createElement(tag)); made.textContent = text; return made; };

function show(id) {
  const fact = facts.values[id];
  box.replaceChildren();
  put(box, "h3", fact.title);
  const list = put(box, "dl", "");
  for (const [name, value] of fact.rows) { put(list, "dt", name); put(list, "dd", value); }
  for (const number of fact.records) {
    const record = facts.records[number];
    put(box, "h3", record.title);
    const inner = put(box, "dl", "");
    for (const [name, value] of record.rows) { put(inner, "dt", name); put(inner, "dd", value); }
  }
  const close = put(box, "button", "Close");
  close.onclick = () => box.close();
  box.showModal();
  box.scrollTop = 0;
}
for (const cell of document.querySelectorAll("td[data-p]")) {
  cell.tabIndex = 0;
  cell.onclick = () => show(cell.dataset.p);
  cell.onkeydown = event => { if (event.key === "Enter") show(cell.dataset.p); };
}
box.onclick = event => { if (event.target === box) box.close(); };

for (const head of document.querySelectorAll("th[data-sort]")) head.onclick = () => {
  const table = head.closest("table"), body = table.tBodies[0], place = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && head.dataset.sort === "higher");
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => row.cells[place].dataset.v ?? row.cells[place].textContent;
  const numeric = head.dataset.sort !== "text";
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (numeric && (x === "" || y === "")) return (x === "") - (y === "");  // what is not ranked stays at the end
    const order = numeric ? x - y : x.localeCompare(y);
    return down ? -order : order;
  });
  body.append(...rows);
};
document.getElementById("theme").onclick = () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
};
document.getElementById("columns").onclick = () => document.body.classList.toggle("all");
