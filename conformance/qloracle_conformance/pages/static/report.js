"use strict";
// Sorting and filtering of tables; without it the pages hold the same content in the report's order.
function valueOf(row, column, kind) {
  const cell = row.cells[column];
  return kind === "text" ? cell.textContent.trim() : Number(cell.dataset.value);
}
function sortBy(table, column, kind, header) {
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = table.tBodies[0];
  const keyed = Array.from(body.rows, (row) => [valueOf(row, column, kind), row]);
  keyed.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (descending ? -1 : 1));
  body.append(...keyed.map(([, row]) => row));
}
function addSorting(table) {
  Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
    if (!header.dataset.sort) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.addEventListener("click", () => sortBy(table, column, header.dataset.sort, header));
    header.replaceChildren(button);
  });
}
function addFilter(table) {
  const rows = Array.from(table.tBodies[0].rows);
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const box = document.createElement("div");
  box.className = "controls";
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "filter " + table.dataset.filter;
  search.setAttribute("aria-label", search.placeholder);
  const shown = document.createElement("output");
  const checks = [...new Set(rows.map((row) => row.dataset.status))].map((status) => {
    const label = document.createElement("label");
    const check = document.createElement("input");
    check.type = "checkbox";
    check.checked = true;
    check.value = status;
    label.append(check, " " + status.replace("-", " "));
    return [check, label];
  });
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const statuses = new Set(checks.filter(([check]) => check.checked).map(([check]) => check.value));
    let count = 0;
    for (const row of rows) {
      row.hidden = !statuses.has(row.dataset.status) || !words.every((word) => texts.get(row).includes(word));
      count += !row.hidden;
    }
    shown.textContent = count + " of " + rows.length;
  };
  box.append(search, ...checks.map(([, label]) => label), shown);
  box.addEventListener("input", apply);
  table.before(box);
  apply();
}
for (const table of document.querySelectorAll("table.sortable")) addSorting(table);
for (const table of document.querySelectorAll("table[data-filter]")) addFilter(table);
