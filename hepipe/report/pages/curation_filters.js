"use strict";
// Which pairs are shown, in which order; the histogram from which a range is dragged.

/** Filter again, and stay with the pair at hand where it is still shown; another order begins at its first pair. */
function refresh(stay = true) {
  const number = current();
  shown = select(pairs, decisions, filter);
  at = stay ? Math.max(0, shown.indexOf(number)) : 0;
  layout();
  reveal();
  drawHistogram();
  drawRanges();
  soon();
}

function fillFilters() {
  const option = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });
  $("sort").append(option("", "order of the tiles"), ...Object.keys(pairs.numbers).map((name) => option(name, name)));
  for (const kind of ["reason", "case", "score", "alignment"]) {
    const names = pairs.words[kind].names.filter(Boolean).sort();
    $(kind).append(option("", "any"), ...names.map((name) => option(name, name)));
    $(kind).parentElement.hidden = names.length < 2 && kind !== "reason";
  }
  const count = pairs.numbers.suspicion.reduce((sum, value, number) => sum + (value > 0 && pairs.passes[number] ? 1 : 0), 0);
  $("suggested-label").textContent = `only suggested (${count})`;
  $("suggested-label").title = "Kept tiles near a limit, flagged or unlike the others; dropped ones that a filter drops by little";
  showFilters();
}

function showFilters() {
  for (const name of ["sort", "passes", "choice", "case", "score", "alignment", "reason", "text"]) $(name).value = filter[name];
  for (const name of ["descending", "suggested"]) $(name).checked = filter[name];
  const range = filter.ranges[filter.sort] || [-Infinity, Infinity];
  $("low").value = Number.isFinite(range[0]) ? range[0] : "";
  $("high").value = Number.isFinite(range[1]) ? range[1] : "";
}

function readFilters(event) {
  for (const name of ["sort", "passes", "choice", "case", "score", "alignment", "reason", "text"]) filter[name] = $(name).value;
  for (const name of ["descending", "suggested"]) filter[name] = $(name).checked;
  if (event.target.id === "low" || event.target.id === "high") {
    const value = (id, none) => { const found = parseFloat($(id).value.replace(",", ".")); return Number.isNaN(found) ? none : found; };
    setRange(value("low", -Infinity), value("high", Infinity));
    return;
  }
  if (event.target.id === "sort") showFilters();
  refresh(event.target.id !== "sort" && event.target.id !== "descending");
}

function setRange(low, high) {
  if (!filter.sort) return;
  if (low === -Infinity && high === Infinity) delete filter.ranges[filter.sort];
  else filter.ranges[filter.sort] = [low, high];
  showFilters();
  refresh();
}

function sortBy(name) {
  if (filter.sort === name) filter.descending = !filter.descending;
  else filter.sort = name;
  showFilters();
  refresh(false);
}

function clearFilters() {
  Object.assign(filter, { passes: "1", choice: "", suggested: false, case: "", score: "", alignment: "", reason: "", text: "", ranges: {} });
  showFilters();
  refresh();
}

function drawRanges() {
  $("ranges").replaceChildren(...Object.entries(filter.ranges).map(([name, [low, high]]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${name} ${Number.isFinite(low) ? short(low) : "…"} – ${Number.isFinite(high) ? short(high) : "…"} ×`;
    button.title = "Remove this range";
    button.onclick = () => { delete filter.ranges[name]; showFilters(); refresh(); };
    return button;
  }));
}

// Histogram ---------------------------------------------------------------------------------------------------

let bins = null; // {low, high, counts} of the sorted score over what the other filters let through

function drawHistogram() {
  const canvas = $("histogram");
  canvas.hidden = !filter.sort;
  if (!filter.sort) return;
  const { [filter.sort]: own, ...ranges } = filter.ranges;
  const values = pairs.numbers[filter.sort];
  const numbers = own ? select(pairs, decisions, { ...filter, ranges, sort: "" }) : shown;
  const found = numbers.map((number) => values[number]).filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  const [context, width, height] = fitted(canvas);
  context.clearRect(0, 0, width, height);
  bins = null;
  if (!found.length) return;
  // A few far values would leave one bar: the last bar holds what lies beyond 99.5 %.
  const low = found[0], top = found[Math.floor(0.995 * (found.length - 1))];
  const high = top > low ? top : low + 1;
  const counts = new Array(40).fill(0);
  for (const value of found) counts[Math.min(39, Math.floor((value - low) / (high - low) * 40))] += 1;
  bins = { low, high, width };
  const most = Math.sqrt(Math.max(...counts));
  const inside = (place) => !own || (low + (place + 1) / 40 * (high - low) >= own[0] && low + place / 40 * (high - low) <= own[1]);
  counts.forEach((count, place) => {
    const tall = count ? Math.max(2, Math.sqrt(count) / most * (height - 4)) : 0;
    context.fillStyle = inside(place) ? colors.haematoxylin : colors.line;
    context.fillRect(place / 40 * width + 0.5, height - tall, width / 40 - 1, tall);
  });
  context.fillStyle = colors.failed;
  for (const of of Object.values(pairs.limits)) {
    for (const limit of of[filter.sort] || []) {
      if (limit !== null && limit >= low && limit <= high) context.fillRect((limit - low) / (high - low) * width - 1, 0, 2, height);
    }
  }
}

function dragHistogram(event) {
  if (!bins) return;
  const value = (e) => bins.low + Math.max(0, Math.min(1, (e.clientX - $("histogram").getBoundingClientRect().left) / bins.width)) * (bins.high - bins.low);
  const from = value(event);
  const move = (e) => {
    const to = value(e);
    const [low, high] = [Math.min(from, to), Math.max(from, to)];
    // The first bar holds the least and the last one all that is beyond it.
    if (high > low) setRange(low <= bins.low ? -Infinity : +low.toPrecision(3), high >= bins.high ? Infinity : +high.toPrecision(3));
  };
  const up = () => { removeEventListener("pointermove", move); removeEventListener("pointerup", up); };
  addEventListener("pointermove", move);
  addEventListener("pointerup", up);
}
