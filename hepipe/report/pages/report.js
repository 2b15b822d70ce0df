// Opens a picture in full on a click; the page works without it.
const zoom = document.getElementById("zoom");
document.addEventListener("click", (event) => {
  if (zoom.open) { zoom.close(); return; }
  if (event.target.matches("main img")) {
    zoom.firstElementChild.src = event.target.src;
    zoom.firstElementChild.alt = event.target.alt;
    zoom.showModal();
  }
});
window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
// A click on the head of a sortable table orders its rows by that column; a second click turns them round.
for (const head of document.querySelectorAll("table.sortable th")) {
  head.tabIndex = 0;
  const sort = () => {
    const body = head.closest("table").tBodies[0];
    const turned = head.ariaSort === "ascending";
    for (const other of head.parentNode.children) other.ariaSort = "none";
    head.ariaSort = turned ? "descending" : "ascending";
    const text = (row) => row.cells[head.cellIndex].textContent.trim();
    const order = head.classList.contains("n")
      ? (a, b) => (parseFloat(text(a)) || 0) - (parseFloat(text(b)) || 0)
      : (a, b) => text(a).localeCompare(text(b), "en", { numeric: true });
    const rows = [...body.rows].sort(order);
    body.append(...(turned ? rows.reverse() : rows));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
  });
}
