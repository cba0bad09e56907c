/* A click on a heading of a table of class "hfc-sortable" sorts its rows by that column, a second click the other way
   round. Numbers are sorted as numbers, the largest first; text from A on; what has no number stands at the end. */
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.hfc-sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const value = row => row.cells[column].textContent.trim();
      const numeric = [...table.tBodies[0].rows].some(row => !isNaN(parseFloat(value(row))));
      const [first, second] = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
      const button = document.createElement("button");
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const order = heading.getAttribute("aria-sort") === first ? second : first;
        headings.forEach(one => one.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const compare = (a, b) => {
          if (!numeric) return sign * value(a).localeCompare(value(b), "en", { numeric: true });
          const [one, other] = [parseFloat(value(a)), parseFloat(value(b))];
          return isNaN(one) - isNaN(other) || sign * (one - other) || 0;
        };
        table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
      });
    });
  }
});
