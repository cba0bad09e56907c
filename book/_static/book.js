// The theme's arrows that unfold a part of the contents have no name for those who cannot see them.
document.querySelectorAll(".bd-sidebar summary").forEach((arrow) => { arrow.ariaLabel = "Subpages"; });
// On a phone the cells of a table of text stand one below the other (book.css), each with the name of its column.
document.querySelectorAll(".bd-content :is(table.table, table.dataframe)").forEach((table) => {
  const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
  const wordy = rows.some((row) => [...row.cells].slice(1).some((cell) => cell.textContent.trim().length > 40));
  const claims = table.tHead?.rows[0]?.cells[0]?.textContent.trim() === "claim";
  table.classList.toggle("hfc-claims", claims);
  if (!table.tHead || !(wordy || claims || table.matches("table.table")) || table.matches(".hfc-sortable")) return;
  const names = [...table.tHead.rows[table.tHead.rows.length - 1].cells].map((cell) => cell.textContent.trim());
  rows.forEach((row) => [...row.cells].forEach((cell, at) => { if (at && names[at]) cell.dataset.name = names[at]; }));
  table.classList.add("hfc-stacked");
});
// A table's number, which the stylesheet counts, is also its address.
document.querySelectorAll(".bd-article table > caption").forEach((caption, at) => {
  const table = caption.parentElement;
  table.id ||= `table-${at + 1}`;
  if (location.hash === `#${table.id}`) table.scrollIntoView();
});
// What is wider than the page scrolls by itself, and says so.
const sayWhatGoesOn = () => document.querySelectorAll(
  ".bd-content :is(.image-reference, .pst-scrollable-table-container, .cell_output, .text_html)",
).forEach((box) => {
  box.style.setProperty("--hfc-shown", `${box.clientWidth}px`); // the width of a caption in it
  box.classList.toggle("hfc-goes-on", box.scrollWidth > box.clientWidth + 1);
});
window.addEventListener("load", sayWhatGoesOn);
window.addEventListener("resize", sayWhatGoesOn);
