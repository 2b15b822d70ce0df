// Views of a pair on one stage: a picture at a time, or H&E and IHC mixed and in turn, all under one zoom.
"use strict";

const FLICKER_MS = 600;

function viewer(root) {
  const stage = root.querySelector(".stage");
  const layers = root.querySelector(".layers");
  const images = Object.fromEntries([...layers.children].map((image) => [image.dataset.name, image]));
  const mix = root.querySelector(".mix");
  const play = root.querySelector(".play");
  let zoom = 1, x = 0, y = 0, timer = 0;
  Object.values(images)[0].classList.add("base");

  const show = (...names) => {
    for (const [name, image] of Object.entries(images)) image.classList.toggle("shown", names.includes(name));
  };
  const blend = (share) => {
    if (images.warped) images.warped.style.opacity = share;
    mix.value = 100 * share;
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.classList.remove("on");
  };
  const start = () => {
    stop();
    let second = false;
    blend(0);
    timer = setInterval(() => { second = !second; blend(second ? 1 : 0); }, FLICKER_MS);
    play.classList.add("on");
  };
  const place = () => { layers.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`; };
  const choose = (button) => {
    stop();
    const name = button.dataset.view;
    root.dataset.view = name;
    for (const other of root.querySelectorAll("[data-view]")) other.classList.toggle("on", other === button);
    root.querySelector(".explain").textContent = button.title;
    if (name === "flicker") { show("he", "warped"); blend(0.5); } else { show(name); }
  };

  for (const button of root.querySelectorAll(".views button")) button.onclick = () => choose(button);
  play.onclick = () => (timer ? stop() : start());
  mix.oninput = () => { stop(); blend(mix.value / 100); };
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== stage && zoom === 1) return; // the page scrolls until it is chosen
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    const next = Math.min(Math.max(zoom * Math.exp(-event.deltaY * 0.0015), 1), 12);
    x = px - (px - x) * (next / zoom);
    y = py - (py - y) * (next / zoom);
    zoom = next;
    if (zoom === 1) { x = 0; y = 0; }
    place();
  }, { passive: false });
  let held = null;
  stage.addEventListener("pointerdown", (event) => { held = [event.clientX - x, event.clientY - y]; stage.setPointerCapture(event.pointerId); });
  stage.addEventListener("pointermove", (event) => {
    if (!held || zoom === 1) return;
    x = event.clientX - held[0];
    y = event.clientY - held[1];
    place();
  });
  stage.addEventListener("pointerup", () => { held = null; });
  stage.addEventListener("dblclick", (event) => {
    const box = stage.getBoundingClientRect();
    [zoom, x, y] = zoom > 1 ? [1, 0, 0] : [3, -2 * (event.clientX - box.left), -2 * (event.clientY - box.top)];
    place();
  });
  stage.addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    if (root.dataset.view === "flicker") play.click();
  });
  choose(root.querySelector(".views button"));
}

for (const root of document.querySelectorAll(".viewer")) viewer(root);
for (const near of document.querySelectorAll(".near")) near.onclick = () => near.classList.toggle("flickering");
const zoomed = document.getElementById("zoom");
document.addEventListener("click", (event) => {
  if (zoomed.open) { zoomed.close(); return; }
  if (event.target.matches(".passed img")) {
    zoomed.firstElementChild.src = event.target.src;
    zoomed.showModal();
  }
});
