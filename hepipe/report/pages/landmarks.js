// The page of landmarks: two views of slides, what a person does to the pairs, and the list of them. A view turns px of
// a slide's largest level into px of its canvas. Nothing leaves the page but the files that a person saves.

const KEY = `hepipe-landmarks ${data.case} ${data.he.size} ${data.ihc.size}`;
const element = (id) => document.getElementById(id);
const COLORS = { good: "#0a7d3c", pending: "#d05a00", bad: "#d0021b", hint: "#5b5fc7" };
const CATCH = 11; // px around a marker's middle that take hold of it

let chosen = -1;
let suggested = -1;
let saved = true;
let byHand = 0; // radians by which a person has turned the IHC further
const past = [];

// Views -------------------------------------------------------------------------------------------------------

class View {
  constructor(name) {
    this.name = name;
    this.slide = data[name];
    this.canvas = element(name);
    this.turned = [1, 0, 0, 1]; // slide to screen, without scale
    this.pxPerUm = 1;
    this.middle = this.slide.size.map((side) => side / 2);
    this.pictures = this.slide.pictures.map(({ at, src }) => ({ at, image: this.load(src) }));
  }

  load(source) {
    const image = new Image();
    image.onload = draw;
    image.src = source;
    return image;
  }

  get size() { return [this.canvas.clientWidth, this.canvas.clientHeight]; }
  get matrix() { return this.turned.map((value) => value * this.pxPerUm * this.slide.mpp); }

  toScreen(p) {
    const moved = apply(this.matrix, [p[0] - this.middle[0], p[1] - this.middle[1]]);
    return [moved[0] + this.size[0] / 2, moved[1] + this.size[1] / 2];
  }

  toSlide(s) {
    const moved = apply(inverse(this.matrix), [s[0] - this.size[0] / 2, s[1] - this.size[1] / 2]);
    return [moved[0] + this.middle[0], moved[1] + this.middle[1]];
  }

  fit() {
    this.middle = this.slide.size.map((side) => side / 2);
    const [w, h] = this.slide.size;
    const m = this.turned.map(Math.abs);
    const need = [m[0] * w + m[1] * h, m[2] * w + m[3] * h];
    this.pxPerUm = Math.min(this.size[0] / need[0], this.size[1] / need[1]) / this.slide.mpp;
  }

  zoom(factor, at) {
    const held = this.toSlide(at);
    this.pxPerUm = Math.min(Math.max(this.pxPerUm * factor, 1e-4), 4 / this.slide.mpp);
    const now = this.toSlide(at);
    this.middle = [this.middle[0] + held[0] - now[0], this.middle[1] + held[1] - now[1]];
  }

  pan(dx, dy) {
    const moved = apply(inverse(this.matrix), [dx, dy]);
    this.middle = [this.middle[0] - moved[0], this.middle[1] - moved[1]];
  }

  // The number of the pair whose marker is at a place of the screen, -1 for none; the last drawn lies on top.
  pairAt(s) {
    for (let i = pairs.length - 1; i >= 0; i -= 1) {
      const p = pairs[i][this.name];
      if (p && distance(this.toScreen(p), s) <= CATCH) return i;
    }
    return -1;
  }

  draw(held) {
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = this.size;
    this.canvas.width = Math.round(w * ratio);
    this.canvas.height = Math.round(h * ratio);
    const context = this.canvas.getContext("2d");
    const m = this.matrix;
    const corner = this.toScreen([0, 0]);
    context.setTransform(ratio * m[0], ratio * m[2], ratio * m[1], ratio * m[3], ratio * corner[0], ratio * corner[1]);
    context.imageSmoothingQuality = "high";
    for (const { at, image } of this.pictures) if (image.complete) context.drawImage(image, ...at);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.name === "he") data.template.forEach((p, i) => this.hint(context, p, i === suggested));
    if (this.name === "ihc" && pending() >= 0) {
      const p = predict(pairs[pending()].he);
      if (p) this.hint(context, p, true);
    }
    pairs.forEach((pair, i) => {
      const p = pair[this.name];
      if (!p) return;
      const color = !pair.ihc ? COLORS.pending : held[i].bad ? COLORS.bad : COLORS.good;
      this.mark(context, p, String(i + 1), color, i === chosen);
    });
    this.bar(context, w, h);
  }

  // A ring with an open middle, so that the structure stays in sight.
  mark(context, p, label, color, strong) {
    const [x, y] = this.toScreen(p);
    const stroke = (width, style) => {
      context.lineWidth = width;
      context.strokeStyle = style;
      context.beginPath();
      context.arc(x, y, 8, 0, 2 * Math.PI);
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + 3 * dx, y + 3 * dy);
        context.lineTo(x + 13 * dx, y + 13 * dy);
      }
      context.stroke();
    };
    stroke(strong ? 6 : 4, "#ffffff");
    stroke(strong ? 3 : 2, color);
    context.font = `600 ${strong ? 15 : 13}px system-ui, sans-serif`;
    context.lineWidth = 4;
    context.strokeStyle = "#ffffff";
    context.strokeText(label, x + 11, y - 9);
    context.fillStyle = color;
    context.fillText(label, x + 11, y - 9);
  }

  hint(context, p, strong) {
    const [x, y] = this.toScreen(p);
    context.setLineDash([4, 3]);
    for (const [width, style] of [[strong ? 5 : 3, "#ffffff"], [strong ? 2.5 : 1.25, COLORS.hint]]) {
      context.lineWidth = width;
      context.strokeStyle = style;
      context.strokeRect(x - (strong ? 14 : 6), y - (strong ? 14 : 6), strong ? 28 : 12, strong ? 28 : 12);
    }
    context.setLineDash([]);
  }

  bar(context, w, h) {
    const wanted = 120 / this.pxPerUm;
    const power = 10 ** Math.floor(Math.log10(wanted));
    const length = [5, 2, 1].map((k) => k * power).find((value) => value <= wanted);
    const px = length * this.pxPerUm;
    const text = length >= 1000 && data.unit === "µm" ? `${length / 1000} mm` : `${length} ${data.unit}`;
    context.fillStyle = "rgb(255 255 255 / .8)";
    context.fillRect(w - px - 26, h - 34, px + 18, 28);
    context.fillStyle = "#222";
    context.fillRect(w - px - 17, h - 14, px, 3);
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillText(text, w - px / 2 - 17, h - 19);
    context.textAlign = "start";
  }
}

const views = {};

function follow() {
  if (!element("link").checked) return;
  const p = predict(views.he.middle);
  if (!p) return;
  views.ihc.middle = p;
  views.ihc.pxPerUm = views.he.pxPerUm;
}

function turn() {
  const known = heFromIhc();
  element("turn").disabled = !known;
  const [a, b, c, d] = (element("turn").checked && known) || [1, 0, 0, 1];
  const [cos, sin] = [Math.cos(byHand), Math.sin(byHand)];
  views.ihc.turned = [cos * a - sin * c, cos * b - sin * d, sin * a + cos * c, sin * b + cos * d];
}

function goTo(i) {
  chosen = i;
  const pair = pairs[i];
  if (!pair) return;
  views.he.middle = pair.he;
  views.ihc.middle = pair.ihc || predict(pair.he) || views.ihc.middle;
}

// Changes -----------------------------------------------------------------------------------------------------

function remember() {
  past.push(JSON.stringify(pairs));
  if (past.length > 200) past.shift();
  saved = false;
}

function keep() {
  try {
    localStorage.setItem(KEY, JSON.stringify(pairs));
  } catch {
    // Some browsers keep nothing for a page opened from a file; the CSV is what counts.
  }
}

function place(name, p) {
  const open = pending();
  if (name === "ihc" && open < 0) {
    say("Begin with a point on the H&E.", true);
    return;
  }
  remember();
  if (name === "ihc") {
    pairs[open].ihc = round(p);
    chosen = open;
  } else if (open >= 0) {
    pairs[open].he = round(p);
  } else {
    pairs.push({ he: round(p), ihc: null });
    chosen = pairs.length - 1;
  }
  if (name === "he") {
    const partner = predict(p);
    if (partner && element("link").checked) {
      views.ihc.middle = partner;
      views.ihc.pxPerUm = views.he.pxPerUm;
    }
  }
  changed();
}

function accept() {
  const open = pending();
  const p = open >= 0 && predict(pairs[open].he);
  if (p) place("ihc", p);
  else say("There is nothing proposed: begin with a point on the H&E.", true);
}

function remove(i) {
  if (i < 0 || i >= pairs.length) return;
  remember();
  pairs.splice(i, 1);
  chosen = Math.min(i, pairs.length - 1);
  changed();
}

function undo() {
  if (!past.length) return;
  pairs = JSON.parse(past.pop());
  chosen = Math.min(chosen, pairs.length - 1);
  saved = false;
  changed();
}

function nudge(dx, dy) {
  const name = document.activeElement === views.he.canvas ? "he" : "ihc";
  const p = pairs[chosen] && pairs[chosen][name];
  if (!p) return;
  remember();
  const s = views[name].toScreen(p);
  pairs[chosen][name] = round(views[name].toSlide([s[0] + dx, s[1] + dy]));
  changed();
}

// The suggested place that is furthest from all pairs.
function suggest() {
  if (!data.template.length) return;
  const nearest = (p) => Math.min(...pairs.map((pair) => distance(pair.he, p)), Infinity);
  const order = data.template.map((p, i) => [nearest(p), i]).sort((a, b) => b[0] - a[0] || a[1] - b[1]);
  const next = order.find(([, i]) => i !== suggested && (pairs.length || i > suggested)) || order[0];
  suggested = next[1];
  views.he.middle = data.template[suggested];
  views.he.pxPerUm = Math.max(views.he.pxPerUm, views.he.size[0] / data.window_um);
  follow();
  say("Find something sharp near the dashed square, click it here and on the IHC.");
  draw();
}

// Files -------------------------------------------------------------------------------------------------------

function download(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function save() {
  download(`${data.case}-landmarks.csv`, toCsv(), "text/csv");
  saved = true;
  say(`${complete().length} pairs saved; name the file in the column landmarks of the slide sheet.`);
}

async function open(file) {
  try {
    const read = fromCsv(await file.text());
    remember();
    pairs = read;
    chosen = -1;
    changed();
    say(`${pairs.length} pairs read.`);
  } catch (error) {
    say(`Not read: ${error.message}.`, true);
  }
}

// The page ----------------------------------------------------------------------------------------------------

function say(text, warn = false) {
  element("say").textContent = text;
  element("say").className = warn ? "warn" : "";
}

function changed() {
  keep();
  turn();
  const open = pending();
  const advice = open >= 0 ? `Pair ${open + 1}: now click the same structure on the IHC.` : "Click a structure on the H&E.";
  say(predict([0, 0]) && open >= 0 ? `${advice} The dashed square is where it is expected; Enter takes it.` : advice);
  draw();
}

function list(held) {
  const done = complete().length;
  const known = held.map(({ off }) => off).filter((value) => value !== null);
  const fits = done < 3 ? `${3 - done} more for a rotation and shift` : done < 6 ? `${6 - done} more for an affine`
    : done < 15 ? `${15 - done} more for a curved transform` : "enough for a curved transform";
  const middle = known.length ? ` Median off ${Math.round(median(known))} ${data.unit}.` : "";
  element("summary").textContent = `${done} pairs${saved ? "" : ", not saved"}; ${fits}.${middle}`;
  const rows = pairs.map((pair, i) => {
    const row = document.createElement("tr");
    row.className = `${i === chosen ? "chosen" : ""} ${held[i].bad ? "bad" : ""}`.trim();
    const drop = document.createElement("button");
    drop.textContent = "×";
    drop.title = `Remove pair ${i + 1}`;
    drop.onclick = (event) => { event.stopPropagation(); remove(i); };
    for (const content of [String(i + 1), !pair.ihc ? "IHC?" : held[i].off === null ? "–" : held[i].off.toFixed(0), drop]) {
      const cell = document.createElement("td");
      cell.append(content);
      row.append(cell);
    }
    row.onclick = () => { goTo(i); draw(); };
    return row;
  });
  element("list").replaceChildren(...rows);
  element("undo").disabled = !past.length;
  element("accept").disabled = pending() < 0 || !predict(pairs[pending()].he);
  element("next").disabled = !data.template.length;
}

let waiting = false;
function draw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const held = residuals();
    views.he.draw(held);
    views.ihc.draw(held);
    list(held);
  });
}

function listen(view) {
  const canvas = view.canvas;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    // A canvas counts its px from inside its border.
    return [event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop];
  };
  let held = null; // {pair, from, last, moved}
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    held = { pair: view.pairAt(at(event)), from: at(event), last: at(event), moved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    const now = at(event);
    if (!held.moved && distance(now, held.from) < 4) return;
    if (!held.moved && held.pair >= 0) remember();
    held.moved = true;
    canvas.classList.add("moving");
    if (held.pair >= 0) {
      pairs[held.pair][view.name] = round(view.toSlide(now));
      chosen = held.pair;
    } else {
      view.pan(now[0] - held.last[0], now[1] - held.last[1]);
      if (view.name === "he") follow();
    }
    held.last = now;
    draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    canvas.classList.remove("moving");
    if (!held) return;
    const { pair, moved } = held;
    held = null;
    if (moved && pair >= 0) changed();
    else if (!moved && pair >= 0) { chosen = pair; draw(); }
    else if (!moved) place(view.name, view.toSlide(at(event)));
  });
  canvas.addEventListener("pointercancel", () => { held = null; });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    view.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), at(event));
    if (view.name === "he") follow();
    draw();
  }, { passive: false });
}

const KEYS = {
  n: suggest,
  Enter: accept,
  Delete: () => remove(chosen),
  Backspace: () => remove(chosen),
  Escape: () => { if (pending() >= 0) remove(pending()); },
  f: () => { views.he.fit(); views.ihc.fit(); draw(); },
  l: () => element("link").click(),
  t: () => element("turn").click(),
  r: () => { byHand += Math.PI / 12; turn(); draw(); },
  s: save,
  o: () => element("open").click(),
  "?": () => element("help").showModal(),
  "[": () => { goTo(Math.max(chosen - 1, 0)); draw(); },
  "]": () => { goTo(Math.min(chosen + 1, pairs.length - 1)); draw(); },
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

document.addEventListener("keydown", (event) => {
  if (element("help").open) return;
  const onButton = ["BUTTON", "INPUT", "LABEL"].includes(event.target.tagName);
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") { event.preventDefault(); undo(); return; }
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") { event.preventDefault(); save(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || (onButton && event.key === "Enter")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (ARROWS[key]) {
    event.preventDefault();
    nudge(...ARROWS[key].map((step) => step * (event.shiftKey ? 10 : 1)));
  } else if (key === "+" || key === "=" || key === "-") {
    const view = document.activeElement === views.ihc.canvas ? views.ihc : views.he;
    view.zoom(key === "-" ? 1 / 1.3 : 1.3, view.size.map((side) => side / 2));
    if (view.name === "he") follow();
    draw();
  } else if (KEYS[key]) {
    event.preventDefault();
    KEYS[key]();
  }
});

function start() {
  for (const name of ["he", "ihc"]) {
    views[name] = new View(name);
    listen(views[name]);
    const { size, mpp } = data[name];
    element(`about-${name}`).textContent = `${size[0]} × ${size[1]} px` + (data.unit === "µm" ? ` at ${Number(mpp.toPrecision(3))} µm` : "");
  }
  element("off").textContent = `off, ${data.unit}`;
  const actions = { next: suggest, accept, undo, fit: KEYS.f, save, "help-button": KEYS["?"] };
  for (const [id, action] of Object.entries(actions)) element(id).onclick = () => { action(); element(id).blur(); };
  for (const name of ["he", "ihc"])
    element(`qupath-${name}`).onclick = () => download(`${data.case}-${name}.geojson`, toGeoJson(name), "application/geo+json");
  element("open").onchange = (event) => { if (event.target.files[0]) open(event.target.files[0]); event.target.value = ""; };
  element("link").checked = true;
  element("link").onchange = () => { follow(); draw(); };
  element("turn").checked = true;
  element("turn").onchange = () => { turn(); if (element("link").checked) follow(); draw(); };
  element("close-help").onclick = () => element("help").close();
  element("clear").onclick = () => { remember(); pairs = []; chosen = -1; element("help").close(); changed(); };
  new ResizeObserver(draw).observe(element("he"));
  turn();
  views.he.fit();
  views.ihc.fit();
  pairs = data.pairs.map(([a, b, c, d]) => ({ he: [a, b], ihc: [c, d] }));
  let restored = null;
  try {
    restored = JSON.parse(localStorage.getItem(KEY) || "null");
  } catch {
    restored = null;
  }
  const differs = Array.isArray(restored) && JSON.stringify(restored) !== JSON.stringify(pairs);
  if (differs && restored.length) {
    past.push(JSON.stringify(pairs));
    pairs = restored;
    saved = false;
  }
  changed();
  if (differs && restored.length) say("The points of your last visit are back; Undo goes to those of the file.");
}

start();
