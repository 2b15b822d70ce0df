"use strict";
// What is decided, what is shown, and where it is saved; nothing here touches the page.

const KEEP = 1, DROP = 2;
const CHOICES = ["", "keep", "drop"];
const COLUMNS = ["content_id", "tile_id", "decision", "reason", "reader", "time"];
/** What a cell may say where it says anything, as the pipeline and the server read it: one they refuse stops all others. */
const CELLS = [
  ["tile_id", /^[\p{L}\p{N}][^\x00-\x1f\x7f]{0,511}$/u, "the id of a tile"],
  ["reason", /^[\p{L}\p{N}][\p{L}\p{N}_ .+-]{0,63}$/u, "at most 64 letters, digits, spaces and . + - _"],
  ["reader", /^[\p{L}\p{N}][\p{L}\p{N}_ .+-]{0,63}$/u, "at most 64 letters, digits, spaces and . + - _"],
  ["time", /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?)?$/, "such as 2025-03-31T14:05:00Z"],
];

/** The pairs by number, column by column, as the page carries them. */
class Pairs {
  constructor(data) {
    Object.assign(this, data);
    this.count = data.content_id.length;
    this.byId = new Map(data.content_id.map((id, number) => [id, number]));
    this.numbers = {};
    for (const [name, values] of Object.entries(data.numbers)) {
      this.numbers[name] = Float64Array.from(values, (value) => (value === null ? NaN : value));
    }
  }

  word(kind, number) {
    const { names, codes } = this.words[kind];
    return names[codes[number]];
  }

  /** [min, max] of a measurement for the pair's kind of section, null where there is no limit. */
  limit(name, number) {
    return (this.limits[this.word("section", number)] || {})[name] || null;
  }
}

/** Every decision, with undo. Decisions on pairs that are not on this page are carried along untouched. */
class Decisions {
  constructor(pairs, reader) {
    this.pairs = pairs;
    this.reader = reader;
    this.choice = new Uint8Array(pairs.count);
    this.reason = new Array(pairs.count).fill("");
    this.time = new Array(pairs.count).fill("");
    this.elsewhere = new Map();
    this.steps = [];
    this.counts = [pairs.count, 0, 0];
    this.onChange = () => {};
  }

  /** Decide pairs as one step of undo; an entry is [number, choice, reason]. */
  decide(entries) {
    const time = new Date().toISOString().slice(0, 19) + "Z";
    this._step(entries.map(([number, choice, reason]) => [number, choice, choice === DROP ? reason : "", choice ? time : ""]), true);
  }

  /** Take back the last step; returns the number of its first pair, or -1. */
  undo() {
    const step = this.steps.pop();
    if (!step) return -1;
    this._step(step, false);
    return step[0][0];
  }

  /** What was saved before, without a step of undo and without saving it again. */
  load(rows) {
    let known = 0;
    for (const row of rows) {
      const number = this.pairs.byId.get(row.content_id);
      const choice = Math.max(0, CHOICES.indexOf(row.decision));
      if (number !== undefined) {
        this._set(number, choice, choice === DROP ? row.reason || "" : "", choice ? row.time || "" : "");
        known += 1;
      } else if (choice) this.elsewhere.set(row.content_id, row);
      else this.elsewhere.delete(row.content_id);
    }
    return known;
  }

  row(number) {
    return {
      content_id: this.pairs.content_id[number], tile_id: this.pairs.tile_id[number],
      decision: CHOICES[this.choice[number]], reason: this.reason[number], reader: this.reader, time: this.time[number],
    };
  }

  /** The file of decisions, in the order of the pairs. */
  csv() {
    const rows = [];
    for (let number = 0; number < this.pairs.count; number++) if (this.choice[number]) rows.push(this.row(number));
    rows.push(...this.elsewhere.values());
    const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replace(/"/g, '""')}"` : value);
    return [COLUMNS, ...rows.map((row) => COLUMNS.map((name) => row[name] || ""))]
      .map((cells) => cells.map(cell).join(",") + "\n").join("");
  }

  _step(entries, undoable) {
    const before = entries.map(([number]) => [number, this.choice[number], this.reason[number], this.time[number]]);
    for (const entry of entries) this._set(...entry);
    if (undoable) this.steps.push(before);
    this.onChange(entries.map(([number]) => number));
  }

  _set(number, choice, reason, time) {
    this.counts[this.choice[number]] -= 1;
    this.counts[choice] += 1;
    this.choice[number] = choice;
    this.reason[number] = reason;
    this.time[number] = time;
  }
}

/** Rows of a file of decisions; throws an Error that says what is wrong. */
function parseCsv(text) {
  const head = text.split("\n", 1)[0];
  const comma = head.split(";").length > head.split(",").length ? ";" : ",";
  const table = [];
  let cells = [], cell = "", quoted = false;
  const endCell = () => { cells.push(cell); cell = ""; };
  for (let at = text.charCodeAt(0) === 0xfeff ? 1 : 0; at < text.length; at++) {
    const letter = text[at];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (text[at + 1] === '"') { cell += '"'; at++; } else quoted = false;
    } else if (letter === '"') quoted = true;
    else if (letter === comma) endCell();
    else if (letter === "\n") { endCell(); table.push(cells); cells = []; } else if (letter !== "\r") cell += letter;
  }
  if (cell || cells.length) { endCell(); table.push(cells); }
  const header = (table.shift() || []).map((name) => name.trim());
  const missing = COLUMNS.slice(0, 4).filter((name) => !header.includes(name));
  if (missing.length) throw new Error(`no column ${missing.join(", ")}`);
  return table.filter((row) => row.some((value) => value.trim())).map((row, line) => {
    const found = Object.fromEntries(COLUMNS.map((name) => [name, (row[header.indexOf(name)] || "").trim()]));
    if (!/^[0-9a-f]{32}$/.test(found.content_id)) throw new Error(`line ${line + 2}: "${found.content_id.slice(0, 40)}" is no content id`);
    if (found.decision !== "keep" && found.decision !== "drop") throw new Error(`line ${line + 2}: keep or drop expected, found "${found.decision.slice(0, 40)}"`);
    for (const [name, form, like] of CELLS) {
      if (found[name] && !form.test(found[name])) throw new Error(`line ${line + 2}, ${name}: ${like} expected, found "${found[name].slice(0, 40)}"`);
    }
    return found;
  });
}

/** The numbers of the pairs that a filter lets through, in its order. */
function select(pairs, decisions, filter) {
  const found = [];
  const code = {};
  for (const kind of ["case", "score", "alignment", "reason"]) {
    if (filter[kind] !== "") code[kind] = pairs.words[kind].names.indexOf(filter[kind]);
  }
  const codes = Object.entries(code).map(([kind, wanted]) => [pairs.words[kind].codes, wanted]);
  const ranges = Object.entries(filter.ranges).map(([name, [low, high]]) => [pairs.numbers[name], low, high]);
  const text = filter.text.trim().toLowerCase();
  for (let number = 0; number < pairs.count; number++) {
    if (filter.passes !== "" && pairs.passes[number] !== +filter.passes) continue;
    if (filter.choice !== "" && decisions.choice[number] !== +filter.choice) continue;
    if (filter.suggested && !(pairs.numbers.suspicion[number] > 0)) continue;
    if (codes.some(([of, wanted]) => of[number] !== wanted)) continue;
    if (ranges.some(([of, low, high]) => !(of[number] >= low && of[number] <= high))) continue;
    if (text && !pairs.tile_id[number].toLowerCase().includes(text)) continue;
    found.push(number);
  }
  if (filter.sort) {
    const values = pairs.numbers[filter.sort], sign = filter.descending ? -1 : 1;
    // Pairs without a value come last, whichever way round.
    found.sort((a, b) => {
      const [x, y] = [values[a], values[b]];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
      return sign * (x - y) || a - b;
    });
  }
  return found;
}

/**
 * Decisions in this browser's storage, as segments of text that are only ever added to: a key costs a short write.
 * Every window writes segments of its own, so that two of them lose nothing to each other.
 */
class Journal {
  constructor(storage, name) {
    this.storage = storage;
    this.name = name;
    this.own = `${name}${String(Date.now()).padStart(15, "0")}${Math.random().toString(36).slice(2, 8)}.`;
    this.segment = 0;
    this.text = "";
    this.seen = [];
  }

  /** All that was written, oldest first; later rows stand in place of earlier ones. */
  read() {
    const rows = new Map();
    let length = 0;
    this.seen = Object.keys(this.storage).filter((key) => key.startsWith(this.name)).sort();
    for (const key of this.seen) {
      const text = this.storage.getItem(key) || "";
      length += text.length;
      for (const line of text.split("\n")) {
        if (!line) continue;
        const [content_id, tile_id, decision, reason, time] = line.split("\t");
        rows.set(content_id, { content_id, tile_id, decision, reason, reader: "", time });
      }
    }
    this._compact([...rows.values()], length);
    return [...rows.values()];
  }

  /** Throws when the storage is full. */
  add(rows) {
    this.text += this._lines(rows);
    this.storage.setItem(this._key(), this.text);
    if (this.text.length > 4000) { this.segment += 1; this.text = ""; }
  }

  clear() {
    for (const key of this.seen) this.storage.removeItem(key);
    for (; this.segment >= 0; this.segment--) this.storage.removeItem(this._key());
    this.seen = [];
    this.segment = 0;
    this.text = "";
  }

  _key() { return this.own + String(this.segment).padStart(6, "0"); }

  _lines(rows) {
    const cells = (row) => [row.content_id, row.tile_id, row.decision, row.reason, row.time];
    return rows.map((row) => cells(row).join("\t") + "\n").join("");
  }

  /** One segment in place of many where much of them is outdated; they go only when it is there. */
  _compact(rows, length) {
    const text = this._lines(rows);
    if (length < 1.5 * text.length) return;
    try {
      this.storage.setItem(this._key(), text);
      for (const key of this.seen) this.storage.removeItem(key);
      this.seen = [this._key()];
      this.segment = 1;
    } catch {
      // The storage is full: the segments stay as they are, and adding to them says so.
    }
  }
}

/** Decisions on their way to the server that this page came from: one request at a time, what is new waits for it. */
class Courier {
  constructor(journal, onSaved, onTrouble) {
    this.journal = journal;
    this.waiting = new Map();
    this.flying = null;
    this.onSaved = onSaved;
    this.onTrouble = onTrouble;
  }

  send(rows) {
    for (const row of rows) this.waiting.set(row.content_id, row);
    if (!this.flying) this._fly();
  }

  /** When the page goes: what is waiting leaves as a last request, and stays in this browser should that fail. */
  flush() {
    if (this.waiting.size) this._post([...this.waiting.values()].slice(0, 200)).catch(() => {});
  }

  async _fly() {
    const rows = [...this.waiting.values()].slice(0, 5000);
    if (!rows.length) return;
    this.flying = rows;
    this.waiting = new Map([...this.waiting].slice(rows.length));
    try {
      const answer = await this._post(rows);
      if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || `status ${answer.status}`);
      this.flying = null;
      if (this.waiting.size) this._fly();
      else { this.journal.clear(); this.onSaved(); }
    } catch (error) {
      // Newer decisions on the same pairs win over those that did not arrive.
      this.waiting = new Map([...rows.map((row) => [row.content_id, row]), ...this.waiting]);
      this.flying = null;
      this.onTrouble(error.message);
      clearTimeout(this.again);
      this.again = setTimeout(() => { if (!this.flying) this._fly(); }, 3000);
    }
  }

  _post(rows) {
    const decisions = rows.map(({ content_id, decision, reason, time }) => ({ content_id, decision, reason, time }));
    const body = JSON.stringify({ decisions });
    // A short request outlives the page.
    const options = { method: "POST", body, keepalive: body.length < 30000 };
    return fetch("decisions", { ...options, headers: { "Content-Type": "application/json", "X-Hepipe": "curation" } });
  }
}
