// Pairs of points on two slides, placed by hand: what is computed from them, and the files they come from and go to.
// Coordinates are px of each slide's largest level throughout.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const AFFINE_FROM = 5; // pairs from which each can be held against an affine through the others

let pairs = []; // {he: [x, y], ihc: [x, y] or null}; only the last may be without a partner

// Geometry ----------------------------------------------------------------------------------------------------

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
const apply = (m, p) => [m[0] * p[0] + m[1] * p[1], m[2] * p[0] + m[3] * p[1]];
const inverse = (m) => {
  const d = m[0] * m[3] - m[1] * m[2];
  return [m[3] / d, -m[1] / d, -m[2] / d, m[0] / d];
};
const round = (p) => p.map((value) => Math.round(value * 100) / 100);
const complete = () => pairs.filter((pair) => pair.ihc);
const pending = () => (pairs.length && !pairs[pairs.length - 1].ihc ? pairs.length - 1 : -1);

// Least squares affine from points a to points b, as a function; null where a lies on a line.
function affine(a, b) {
  const n = a.length;
  const mean = (points, axis) => points.reduce((sum, p) => sum + p[axis], 0) / n;
  const ma = [mean(a, 0), mean(a, 1)];
  const mb = [mean(b, 0), mean(b, 1)];
  let xx = 0, xy = 0, yy = 0;
  const xb = [0, 0], yb = [0, 0];
  for (let i = 0; i < n; i += 1) {
    const x = a[i][0] - ma[0], y = a[i][1] - ma[1];
    xx += x * x; xy += x * y; yy += y * y;
    for (const k of [0, 1]) { xb[k] += x * (b[i][k] - mb[k]); yb[k] += y * (b[i][k] - mb[k]); }
  }
  const det = xx * yy - xy * xy;
  if (!(det > 1e-4 * (xx + yy) ** 2)) return null;
  const m = [0, 1].flatMap((k) => [(yy * xb[k] - xy * yb[k]) / det, (xx * yb[k] - xy * xb[k]) / det]);
  return (p) => apply(m, [p[0] - ma[0], p[1] - ma[1]]).map((value, k) => value + mb[k]);
}

// Rotation and mirroring of a 2 x 2 matrix, without its scale and shear.
function orthogonal(m) {
  const sign = m[0] * m[3] - m[1] * m[2] < 0 ? -1 : 1;
  const angle = Math.atan2(m[2] - sign * m[1], m[0] + sign * m[3]);
  return [Math.cos(angle), -sign * Math.sin(angle), Math.sin(angle), sign * Math.cos(angle)];
}

// What turns the IHC the H&E's way up: by the registration, else by the pairs so far; null when unknown.
function heFromIhc() {
  if (data.grid) return data.he_from_ihc;
  const done = complete();
  const fit = done.length >= 3 && affine(done.map((pair) => pair.ihc), done.map((pair) => pair.he));
  if (!fit) return null;
  const [o, x, y] = [fit([0, 0]), fit([1, 0]), fit([0, 1])];
  return orthogonal([x[0] - o[0], y[0] - o[0], x[1] - o[1], y[1] - o[1]]);
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// For each pair how far it lies from where the others put it, µm (`off`, null where unknown), and whether that is far
// against how well the others agree among themselves (`bad`).
function residuals() {
  const done = complete();
  const least = 0.01 * Math.hypot(...data.ihc.size) * data.ihc.mpp;
  const others = done.length - 1;
  return pairs.map((pair) => {
    if (!pair.ihc || done.length < AFFINE_FROM) return { off: null, bad: false };
    const rest = done.filter((other) => other !== pair);
    const fit = affine(rest.map((p) => p.he), rest.map((p) => p.ihc));
    if (!fit) return { off: null, bad: false };
    const error = (p) => distance(fit(p.he), p.ihc) * data.ihc.mpp;
    const typical = median(rest.map(error)) / Math.sqrt(1 - 3 / others);
    return { off: error(pair), bad: error(pair) > Math.max(5 * typical, least) };
  });
}

// Where a point of the H&E should lie on the IHC: by the registration, else by the pairs so far; null when unknown.
function predict(p) {
  if (data.grid) {
    const { columns, rows, step, x, y } = data.grid;
    const u = p[0] / step[0], v = p[1] / step[1];
    const i = Math.min(Math.max(Math.floor(u), 0), columns - 2);
    const j = Math.min(Math.max(Math.floor(v), 0), rows - 2);
    const at = j * columns + i, fu = u - i, fv = v - j;
    const mix = (a) =>
      (a[at] * (1 - fu) + a[at + 1] * fu) * (1 - fv) + (a[at + columns] * (1 - fu) + a[at + columns + 1] * fu) * fv;
    return [mix(x), mix(y)];
  }
  const done = complete();
  if (done.length < 3) return null;
  const fit = affine(done.map((pair) => pair.he), done.map((pair) => pair.ihc));
  return fit && fit(p);
}

// Files -------------------------------------------------------------------------------------------------------

function toCsv() {
  const rows = complete().map((pair) => [...pair.he, ...pair.ihc].map((value) => value.toFixed(2)).join(","));
  return `${["x_he,y_he,x_ihc,y_ihc", ...rows].join("\n")}\n`;
}

function fromCsv(text) {
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/).filter((line) => line.trim());
  const head = (lines.shift() || "").split(",").map((name) => name.trim().toLowerCase());
  const columns = ["x_he", "y_he", "x_ihc", "y_ihc"].map((name) => head.indexOf(name));
  if (columns.includes(-1)) throw new Error("columns x_he, y_he, x_ihc, y_ihc expected; other formats: hepipe landmarks import");
  return lines.map((line, i) => {
    const cells = line.split(",");
    const values = columns.map((at) => (cells[at] || "").trim() === "" ? NaN : Number(cells[at]));
    if (!values.every(Number.isFinite)) throw new Error(`row ${i + 2} holds no four numbers`);
    return { he: values.slice(0, 2), ihc: values.slice(2) };
  });
}

function toGeoJson(name) {
  const marks = complete().length
    ? complete().map((pair) => pair[name])
    : data.template.map((p) => (name === "he" ? p : predict(p) || p));
  const features = marks.map((p, i) => ({
    type: "Feature",
    geometry: { type: "Point", coordinates: round(p) },
    properties: { objectType: "annotation", name: String(i + 1), classification: { name: "landmark", color: [210, 80, 20] } },
  }));
  return JSON.stringify({ type: "FeatureCollection", features }, null, 1);
}
