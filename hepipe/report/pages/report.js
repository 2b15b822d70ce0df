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
