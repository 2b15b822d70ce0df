"use strict";
// Contact sheets and larger pictures: loaded when they are wanted, decoded beside the page's own work, forgotten in turn.

const SHEETS_KEPT = 120; // 2 MB of pixels each
const PICTURES_KEPT = 12;
const AT_ONCE = 6;

/** Pictures by name, at most `most` of them; `wanted` says which to load first. */
class Shelf {
  constructor(most, onReady) {
    this.most = most;
    this.onReady = onReady;
    this.ready = new Map();
    this.loading = new Set();
    this.failed = new Set();
    this.queue = [];
  }

  get(name) {
    const found = this.ready.get(name);
    if (found) { this.ready.delete(name); this.ready.set(name, found); }
    return found || null;
  }

  /** What is asked for now, the most urgent first; what was asked for before and has not begun is forgotten. */
  want(names) {
    this.queue = names.filter((name) => !this.ready.has(name) && !this.loading.has(name) && !this.failed.has(name));
    this._next();
  }

  _next() {
    while (this.loading.size < AT_ONCE && this.queue.length) this._load(this.queue.shift());
  }

  async _load(name) {
    this.loading.add(name);
    try {
      const image = new Image();
      image.src = name;
      await image.decode();
      this.ready.set(name, await createImageBitmap(image));
      for (const old of this.ready.keys()) {
        if (this.ready.size <= this.most) break;
        this.ready.get(old).close();
        this.ready.delete(old);
      }
    } catch {
      this.failed.add(name);
    }
    this.loading.delete(name);
    this._next();
    this.onReady(name);
  }
}

/** Draws either stain of a pair as sharply as it is at hand. */
class Pictures {
  constructor(pairs, onReady) {
    this.pairs = pairs;
    this.served = false;
    this.sheets = new Shelf(SHEETS_KEPT, onReady);
    this.larger = new Shelf(PICTURES_KEPT, onReady);
  }

  sheetOf(number) { return "sheets/" + this.pairs.sheets[Math.floor(number / this.pairs.side ** 2)]; }

  largerOf(number) {
    const folder = this.served ? "tile" : this.pairs.pictures;
    return folder ? `${folder}/${this.pairs.content_id[number]}.jpg` : "";
  }

  want(numbers) { this.sheets.want([...new Set(numbers.map((number) => this.sheetOf(number)))]); }

  wantLarger(numbers) { this.larger.want(numbers.map((number) => this.largerOf(number)).filter(Boolean)); }

  /** Draw both stains side by side from the contact sheet; false when it is not there yet. */
  drawPair(context, number, x, y, size) {
    const sheet = this.sheets.get(this.sheetOf(number));
    if (!sheet) return false;
    const { thumb, side } = this.pairs, place = number % side ** 2;
    context.drawImage(sheet, (place % side) * 2 * thumb, Math.floor(place / side) * thumb, 2 * thumb, thumb, x, y, 2 * size, size);
    return true;
  }

  /**
   * Draw one stain (0 H&E, 1 IHC), or the part [left, top, width, height] of it in shares of its side, into a box.
   * Returns the px of the tile that it was drawn from; 0 when nothing is there yet.
   */
  drawStain(context, number, stain, box, part = [0, 0, 1, 1]) {
    const larger = this.larger.get(this.largerOf(number));
    const sheet = larger ? null : this.sheets.get(this.sheetOf(number));
    if (!larger && !sheet) return 0;
    const px = larger ? larger.height : this.pairs.thumb;
    const place = number % this.pairs.side ** 2;
    const left = larger ? stain * px : ((place % this.pairs.side) * 2 + stain) * px;
    const top = larger ? 0 : Math.floor(place / this.pairs.side) * px;
    context.drawImage(larger || sheet, left + part[0] * px, top + part[1] * px, part[2] * px, part[3] * px, ...box);
    return px;
  }
}
