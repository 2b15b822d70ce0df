"use strict";
// The page: filters on the left, contact sheet in the middle, the pair at hand on the right.

const $ = (id) => document.getElementById(id);
const pairs = new Pairs(JSON.parse($("data").textContent));
const decisions = new Decisions(pairs, pairs.reader);
const pictures = new Pictures(pairs, () => soon());
const journal = new Journal(localStorage, `hepipe-curation/${pairs.dataset}/${pairs.reader}/`);
let courier = null; // where a server takes the decisions

const SIZES = [56, 76, 100, 128, 168, 224];
const FLICKER_MS = 220; // below the three flashes a second that are safe for everyone
const GAP = 10, LABEL = 20;
const filter = { sort: "suspicion", descending: true, passes: "1", choice: "", suggested: false, case: "", score: "", alignment: "", reason: "", text: "", ranges: {} };
let shown = [];      // numbers of the pairs that the filter lets through
let at = 0;          // place in `shown` of the pair at hand
let wished = 128;    // px of a tile on the screen, before the row is filled
let size = wished;
let flicker = null;  // timer while F is held
let turned = false;  // whether the flicker shows the other stain just now
let waiting = false; // whether a frame is asked for

const current = () => (shown.length ? shown[at] : -1);
const colors = {};

// Saving ------------------------------------------------------------------------------------------------------

function say(text, warn = false) {
  $("saved").textContent = text;
  $("saved").classList.toggle("warn", warn);
}

decisions.onChange = (numbers) => {
  const rows = numbers.map((number) => decisions.row(number));
  keep(rows);
  if (courier) { say("saving"); courier.send(rows); }
  soon();
};

/** Written into this browser before anything else happens: a page that closes now loses nothing. */
function keep(rows) {
  try {
    journal.add(rows);
    if (!courier) say("kept in this browser");
  } catch {
    say("This browser's storage is full: save the CSV now", true);
  }
}

const strays = new Map(); // decisions on pairs that are not here: no server takes them, so that they stay in this browser

/** To the server what it takes; one row that it refuses would hold up all others. */
function send(rows) {
  for (const row of rows) if (!pairs.byId.has(row.content_id)) strays.set(row.content_id, row);
  courier.send(rows.filter((row) => pairs.byId.has(row.content_id)));
}

function arrived() {
  if (strays.size) keep([...strays.values()]);
  say("saved");
}

async function start() {
  const kept = journal.read();
  if (location.protocol.startsWith("http")) {
    const answer = await fetch("decisions.json").catch(() => null);
    if (answer && answer.ok) {
      decisions.load((await answer.json()).decisions);
      pictures.served = true;
      courier = new Courier(journal, arrived, (why) => say(`Not saved, trying again: ${why}`, true));
    }
  }
  decisions.load(kept);
  if (courier) {
    say("saved");
    if (kept.length) send(kept);
  } else if (kept.length) say(`${kept.length} decisions found in this browser`);
  $("save").textContent = courier ? "Save a copy" : "Save CSV";
  $("where").textContent = courier
    ? `Every decision is written to decisions-${pairs.reader}.csv beside this page.`
    : "Decisions are kept in this browser and leave it only as the CSV that you save.";
  refresh();
  document.dispatchEvent(new CustomEvent("ready"));
}

function saveCsv() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([decisions.csv()], { type: "text/csv" }));
  link.download = `decisions-${pairs.reader}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  if (!courier) say("CSV saved");
}

async function openCsv(file) {
  try {
    const rows = parseCsv(await file.text());
    const known = rows.filter((row) => pairs.byId.has(row.content_id)).length;
    if (rows.length && !known) throw new Error(`none of its ${rows.length} decisions is about a pair of this page: another data set's?`);
    decisions.load(rows);
    keep(rows);
    if (courier) send(rows);
    say(`${known} decisions read` + (known < rows.length ? `; ${rows.length - known} match no pair here and are carried along` : ""));
  } catch (error) {
    say(`${file.name}: ${error.message}`, true);
  }
  refresh();
}

// Deciding ----------------------------------------------------------------------------------------------------

function decide(choice, reason = "") {
  const number = current();
  if (number < 0) return;
  decisions.decide([[number, choice, reason]]);
  if (choice) go(at + 1);
}

function undo() {
  const number = decisions.undo();
  if (number < 0) return;
  const place = shown.indexOf(number);
  if (place >= 0) go(place);
  else say("Undone for a pair that the filter hides");
}

function keepRest() {
  const open = shown.filter((number) => !decisions.choice[number]);
  if (open.length && confirm(`Keep the ${open.length} open pairs that are shown? Undo takes it back at once.`)) {
    decisions.decide(open.map((number) => [number, KEEP, ""]));
  }
}

function nextOpen() {
  for (let step = 1; step <= shown.length; step++) {
    const place = (at + step) % shown.length;
    if (!decisions.choice[shown[place]]) return go(place);
  }
  say("Every pair that is shown is decided");
}

function go(place) {
  at = Math.max(0, Math.min(shown.length - 1, place));
  reveal();
  soon();
}

// Contact sheet -----------------------------------------------------------------------------------------------

const grid = { columns: 1, width: 0, height: 0, cell: [0, 0] };

function fitted(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas, dense = devicePixelRatio || 1;
  const [w, h] = [Math.round(width * dense), Math.round(height * dense)];
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const context = canvas.getContext("2d");
  context.setTransform(dense, 0, 0, dense, 0, 0);
  context.imageSmoothingQuality = "medium";
  return [context, width, height];
}

function layout() {
  const box = $("scroll");
  grid.width = box.clientWidth;
  grid.height = box.clientHeight;
  // As many pairs as fit at about the size that is wished for, and then as large as fills the row.
  grid.columns = Math.max(1, Math.round((grid.width - GAP) / (2 * wished + GAP)));
  size = Math.max(20, Math.floor(((grid.width - GAP) / grid.columns - GAP) / 2));
  grid.cell = [2 * size + GAP, size + LABEL + GAP];
  const rows = Math.ceil(shown.length / grid.columns);
  $("grid").style.width = `${grid.width}px`;
  $("grid").style.height = `${grid.height}px`;
  $("room").style.height = `${Math.max(0, rows * grid.cell[1] + GAP - grid.height)}px`;
}

/** Scroll so that the pair at hand is in view, with a row to spare. */
function reveal() {
  const box = $("scroll"), row = Math.floor(at / grid.columns) * grid.cell[1];
  if (row - grid.cell[1] < box.scrollTop) box.scrollTop = Math.max(0, row - grid.cell[1]);
  else if (row + 2 * grid.cell[1] + GAP > box.scrollTop + grid.height) box.scrollTop = row + 2 * grid.cell[1] + GAP - grid.height;
}

function drawGrid() {
  const [context, width, height] = fitted($("grid"));
  context.clearRect(0, 0, width, height);
  const top = $("scroll").scrollTop;
  const first = Math.max(0, Math.floor((top - GAP) / grid.cell[1]) * grid.columns);
  const rows = Math.ceil(height / grid.cell[1]) + 1;
  const last = Math.min(shown.length, first + rows * grid.columns);
  const name = filter.sort;
  // Where a picture is drawn at about its own size, the better scaling costs time and shows nothing.
  context.imageSmoothingQuality = size * (devicePixelRatio || 1) > 0.7 * pairs.thumb ? "low" : "medium";
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (let place = first; place < last; place++) {
    const number = shown[place];
    const x = GAP + (place % grid.columns) * grid.cell[0];
    const y = GAP + Math.floor(place / grid.columns) * grid.cell[1] - top;
    drawCell(context, number, x, y, place === at, name);
  }
  if (!shown.length) {
    context.fillStyle = colors.quiet;
    context.fillText("No pair passes these filters.", GAP * 2, 30);
  }
  // What is seen comes first, then the pairs to come.
  pictures.want([current(), ...shown.slice(first, last), ...shown.slice(last, last + 2 * grid.columns)].filter((number) => number >= 0));
}

function drawCell(context, number, x, y, isCurrent, name) {
  const choice = decisions.choice[number];
  if (!pictures.drawPair(context, number, x, y, size)) {
    context.fillStyle = colors.line;
    context.fillRect(x, y, 2 * size, size);
  }
  if (choice === DROP) {
    context.fillStyle = colors.veil;
    context.fillRect(x, y, 2 * size, size);
  }
  const color = isCurrent ? colors.haematoxylin : [null, colors.ok, colors.failed][choice];
  if (color) {
    context.lineWidth = isCurrent ? 4 : 2;
    context.strokeStyle = color;
    context.strokeRect(x - 1, y - 1, 2 * size + 2, size + 2);
  }
  if (choice) {
    context.fillStyle = [null, colors.ok, colors.failed][choice];
    context.fillRect(x, y, 20, 20);
    context.fillStyle = colors.on;
    context.font = "bold 14px system-ui, sans-serif";
    context.fillText(choice === KEEP ? "✓" : "✗", x + 4, y + 11);
    context.font = "12px system-ui, sans-serif";
  } else if (pairs.numbers.suspicion[number] > 0) {
    context.fillStyle = colors.review;
    context.beginPath();
    context.arc(x + 9, y + 9, 6, 0, 7);
    context.fill();
    context.strokeStyle = colors.on;
    context.lineWidth = 1.5;
    context.stroke();
  }
  const value = name ? short(pairs.numbers[name][number]) : pairs.tile_id[number].split("/").pop();
  const verdict = decisions.reason[number] || (pairs.passes[number] ? "" : pairs.word("reason", number));
  context.fillStyle = isCurrent ? colors.ink : colors.quiet;
  context.fillText(`${value}${verdict ? ` · ${verdict}` : ""}`, x, y + size + LABEL / 2 + 1, 2 * size);
}

const short = (value) => (Number.isNaN(value) ? "–" : Number.isInteger(value) ? String(value) : value.toPrecision(3));

// The pair at hand ----------------------------------------------------------------------------------------------

function drawPair() {
  const canvas = $("pair"), number = current();
  const wide = canvas.clientWidth;
  // Side by side where the column is wide, one above the other where the window is tall enough for it.
  const stacked = wide < 560 && innerHeight - 420 > 1.6 * wide;
  const tile = stacked ? wide : (wide - 4) / 2;
  canvas.style.height = `${stacked ? 2 * wide + 4 : tile}px`;
  const [context, width, height] = fitted(canvas);
  context.clearRect(0, 0, width, height);
  if (number < 0) return;
  const boxes = [[0, 0, tile, tile], stacked ? [0, tile + 4, tile, tile] : [tile + 4, 0, tile, tile]];
  boxes.forEach((box, place) => {
    const stain = flicker && place === 0 && turned ? 1 : place;
    pictures.drawStain(context, number, stain, box);
    tagStain(context, stain, box[0] + 6, box[1] + 6);
  });
}

function tagStain(context, stain, x, y) {
  const text = stain ? "IHC" : "H&E";
  context.font = "600 12px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.fillStyle = stain ? colors.dab : colors.haematoxylin;
  context.fillRect(x, y, context.measureText(text).width + 10, 19);
  context.fillStyle = colors.on;
  context.fillText(text, x + 5, y + 10);
}

/** The decision on a pair in words. */
const said = (number) => ["open", "keep", `drop${decisions.reason[number] ? `: ${decisions.reason[number]}` : ""}`][decisions.choice[number]];

let told = "";

function drawFacts() {
  const number = current();
  const state = number < 0 ? "" : `${number} ${decisions.choice[number]} ${decisions.reason[number]} ${filter.sort}`;
  if (state === told) return;
  told = state;
  const choice = number < 0 ? 0 : decisions.choice[number];
  for (const button of $("decide").children) {
    const [wanted, reason] = [+button.dataset.choice, button.dataset.reason];
    button.classList.toggle("on", number >= 0 && choice === wanted && (wanted === KEEP || decisions.reason[number] === reason));
    button.disabled = number < 0;
  }
  if (number < 0) {
    $("now").textContent = "";
    $("facts").replaceChildren();
    $("scores").hidden = true;
    return;
  }
  const word = (kind) => pairs.word(kind, number);
  $("now").textContent = `${pairs.tile_id[number]} – ${said(number)}`;
  const facts = [
    ["look, as", word("why"), "warn"],
    ["filters", pairs.passes[number] ? "kept" : `dropped: ${word("reason")}`],
    ["all flags", word("flags") === word("reason") ? "" : word("flags")],
    ["alignment", `${word("alignment")}, ${word("section")}`],
    ["HER2 score", word("score")],
    ["case", word("case")],
    ["region", word("region")],
    ["place", word("place") === "inside" ? "" : word("place")],
    ["same pixels", pairs.twins[number] ? `in ${pairs.twins[number]} further tiles, which share the decision` : ""],
  ];
  $("facts").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value, kind]) => [
    element("dt", name), Object.assign(element("dd", value), { className: kind || "" }),
  ]));
  $("scores").hidden = false;
  for (const row of $("scores").tBodies[0].rows) showScore(row, number);
}

/** The rows stay, only what they say changes: building them anew would be most of the work of a key. */
function showScore(row, number) {
  const { name } = row.dataset, value = pairs.numbers[name][number], limit = pairs.limit(name, number);
  row.cells[1].textContent = short(value);
  const said = limit ? [limit[0] === null ? "" : `≥ ${limit[0]}`, limit[1] === null ? "" : `≤ ${limit[1]}`] : [];
  row.cells[2].textContent = said.filter(Boolean).join(", ");
  const share = limit ? Math.max(limit[1] > 0 ? value / limit[1] : 0, limit[0] > 0 && value > 0 ? limit[0] / value : 0) : 0;
  row.className = (share > 1 ? "beyond" : share >= 0.9 ? "near" : "") + (filter.sort === name ? " sorted" : "");
}

function fillScores() {
  $("scores").tBodies[0].replaceChildren(...Object.keys(pairs.numbers).map((name) => {
    const row = document.createElement("tr");
    row.title = "Sort by this score";
    row.dataset.name = name;
    row.append(element("td", name), element("td", ""), element("td", ""));
    return row;
  }));
}

const element = (kind, text) => Object.assign(document.createElement(kind), { textContent: text });

function drawHeader() {
  const [open, kept, dropped] = decisions.counts;
  $("counts").textContent = `${kept + dropped} of ${pairs.count}: ${kept} keep, ${dropped} drop`;
  const [green, red] = $("progress").children;
  green.style.width = `${kept / pairs.count * 100}%`;
  red.style.width = `${dropped / pairs.count * 100}%`;
  $("progress").setAttribute("aria-valuenow", Math.round((pairs.count - open) / pairs.count * 100));
  $("undo").disabled = !decisions.steps.length;
  $("shown").textContent = `${shown.length} pairs shown` + (shown.length ? `, ${at + 1} at hand` : "");
}

// Frames ------------------------------------------------------------------------------------------------------

/** Draw everything in the next frame, once. */
function soon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(draw);
}

function draw() {
  waiting = false;
  drawHeader();
  drawGrid();
  drawPair();
  drawFacts();
  if ($("zoom").open) drawLens();
  if (shown.length) pictures.wantLarger([at, at + 1, at + 2, at - 1].filter((place) => shown[place] !== undefined).map((place) => shown[place]));
  document.dispatchEvent(new CustomEvent("drawn", { detail: current() }));
}

function setFlicker(on) {
  if (on === Boolean(flicker)) return;
  clearInterval(flicker);
  flicker = on ? setInterval(() => { turned = !turned; soon(); }, FLICKER_MS) : null;
  turned = on;
  soon();
}

function setSize(step) {
  wished = SIZES[Math.max(0, Math.min(SIZES.length - 1, SIZES.indexOf(wished) + step))];
  layout();
  reveal();
  soon();
}

function readColors() {
  const probe = element("i", "");
  document.body.append(probe);
  for (const name of ["ink", "quiet", "line", "ok", "review", "failed", "haematoxylin", "dab"]) {
    probe.style.color = `var(--${name})`;
    colors[name] = getComputedStyle(probe).color;
  }
  probe.style.color = "var(--on-main)";
  colors.on = getComputedStyle(probe).color;
  probe.remove();
  colors.veil = "rgb(128 128 128 / 55%)";
}

// Keys --------------------------------------------------------------------------------------------------------

const KEYS = [
  ["K", "keep, and on to the next"], ["D", "drop, and on to the next"], ["1 … 9", "drop for the reason of that number"],
  ["0, Backspace", "open again"], ["U, Ctrl+Z", "undo"], ["arrows, Page ↑↓, Home, End", "move"], ["N", "next open pair"],
  ["hold F", "flicker between the stains"], ["Enter", "zoom in and out of the pair; the wheel zooms, drag moves"],
  ["Shift+K", "keep all open pairs that are shown"], ["G", "only suggested, or all"], ["+ −", "size of the sheet"], ["S", "save the CSV"],
];

const MOVES = {
  ArrowRight: () => at + 1, ArrowLeft: () => at - 1, ArrowDown: () => at + grid.columns, ArrowUp: () => at - grid.columns,
  PageDown: () => at + grid.columns * Math.max(1, Math.floor(grid.height / grid.cell[1])),
  PageUp: () => at - grid.columns * Math.max(1, Math.floor(grid.height / grid.cell[1])),
  Home: () => 0, End: () => shown.length - 1,
};

function onKey(event) {
  const typed = event.target.matches("select, input:not([type=checkbox])");
  if ($("help").open || typed) return event.key === "Escape" && typed ? event.target.blur() : undefined;
  if (event.target.matches("button") && (event.key === "Enter" || event.key === " ")) return undefined;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) return key === "z" ? (event.preventDefault(), undo()) : undefined;
  if (event.altKey) return undefined;
  const act = ACTIONS[event.shiftKey && key === "k" ? "K" : key] || (MOVES[event.key] && (() => go(MOVES[event.key]())));
  if (/^[1-9]$/.test(key) && pairs.reasons[key - 1]) decide(DROP, pairs.reasons[key - 1]);
  else if (act) act(event);
  else return undefined;
  return event.preventDefault();
}

const ACTIONS = {
  k: () => decide(KEEP), d: () => decide(DROP), K: keepRest, u: undo, n: nextOpen, s: saveCsv, f: () => setFlicker(true),
  0: () => decide(0), Backspace: () => decide(0), Enter: toggleZoom, "+": () => setSize(1), "=": () => setSize(1), "-": () => setSize(-1),
  g: () => { filter.suggested = !filter.suggested; showFilters(); refresh(); }, "?": () => $("help").showModal(),
};

function fillButtons() {
  const button = (choice, reason, key, text) => {
    const made = document.createElement("button");
    made.type = "button";
    made.append(element("kbd", key), ` ${text}`);
    Object.assign(made.dataset, { choice, reason });
    made.className = CHOICES[choice];
    made.title = text;
    made.onclick = () => decide(choice, reason);
    return made;
  };
  $("decide").replaceChildren(
    button(KEEP, "", "K", "keep"), button(DROP, "", "D", "drop"),
    ...pairs.reasons.map((reason, place) => button(DROP, reason, String(place + 1), reason)),
  );
  const legend = [["K", "keep"], ["D", "drop"], ...pairs.reasons.map((reason, place) => [place + 1, reason]), ["F", "flicker"], ["wheel", "zoom"], ["Esc", "back"]];
  $("lens-keys").replaceChildren(...legend.flatMap(([key, text]) => [element("kbd", key), ` ${text}  `]));
  $("keys").replaceChildren(...KEYS.flatMap(([key, text]) => {
    const term = document.createElement("dt");
    term.append(...key.split(", ").flatMap((one, place) => [place ? " " : "", element("kbd", one)]));
    return [term, element("dd", text)];
  }));
}

// Wiring ------------------------------------------------------------------------------------------------------

addEventListener("keydown", onKey);
addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "f") setFlicker(false); });
addEventListener("blur", () => setFlicker(false));
addEventListener("resize", () => { layout(); drawHistogram(); soon(); });
addEventListener("pagehide", () => { if (courier) courier.flush(); });
addEventListener("storage", (event) => {
  if (event.key && event.key.startsWith(journal.name)) say("Another window decides on this data set too: close one of them", true);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColors(); drawHistogram(); soon(); });
$("filters").addEventListener("input", readFilters);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("histogram").addEventListener("pointerdown", dragHistogram);
$("histogram").addEventListener("dblclick", () => setRange(-Infinity, Infinity));
$("scroll").addEventListener("scroll", soon, { passive: true });
$("grid").addEventListener("click", (event) => {
  const column = Math.floor((event.offsetX - GAP / 2) / grid.cell[0]);
  const place = Math.floor((event.offsetY + $("scroll").scrollTop - GAP / 2) / grid.cell[1]) * grid.columns + column;
  if (column >= 0 && column < grid.columns && place >= 0 && place < shown.length) go(place);
});
$("grid").addEventListener("dblclick", toggleZoom);
$("pair").addEventListener("click", toggleZoom);
$("lens").addEventListener("wheel", wheelLens, { passive: false });
$("lens").addEventListener("pointermove", moveLens);
$("zoom").addEventListener("close", soon);
$("scores").addEventListener("click", (event) => { const row = event.target.closest("tr[data-name]"); if (row) sortBy(row.dataset.name); });
for (const [id, act] of Object.entries({
  undo, rest: keepRest, save: saveCsv, all: clearFilters, smaller: () => setSize(-1), larger: () => setSize(1),
  "help-button": () => $("help").showModal(), "close-help": () => $("help").close(),
})) $(id).addEventListener("click", act);
$("open").addEventListener("change", (event) => { if (event.target.files[0]) openCsv(event.target.files[0]); event.target.value = ""; });

readColors();
fillButtons();
fillScores();
fillFilters();
start();
