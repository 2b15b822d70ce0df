"use strict";
// Contact sheets and larger pictures: loaded when they are wanted, decoded beside the page's own work, forgotten in turn.

const THUMBS_KEPT = 800; // 131 kB of pixels each at 128 px a tile; sheets are let go once they are cut up
const PICTURES_KEPT = 6;
const AT_ONCE = 6;

/** Loads pictures a few at a time, the most urgent first; what was wanted before and has not begun is forgotten. */
class Loader {
  constructor(load) {
    this.load = load;
    this.loading = new Set();
    this.failed = new Set();
    this.queue = [];
  }

  want(names) {
    this.queue = names.filter((name) => !this.loading.has(name) && !this.failed.has(name));
    this._next();
  }

  _next() {
    while (this.loading.size < AT_ONCE && this.queue.length) this._one(this.queue.shift());
  }

  async _one(name) {
    this.loading.add(name);
    const image = new Image();
    try {
      image.src = name;
      await image.decode();
      await this.load(name, image);
    } catch {
      this.failed.add(name);
    }
    image.removeAttribute("src");
    this.loading.delete(name);
    this._next();
  }
}

/** Decoded pictures by key, at most `most` of them: those that were not asked for the longest go first. */
class Shelf {
  constructor(most) {
    this.most = most;
    this.ready = new Map();
  }

  has(key) { return this.ready.has(key); }

  get(key) {
    const found = this.ready.get(key);
    if (found) { this.ready.delete(key); this.ready.set(key, found); }
    return found || null;
  }

  put(key, bitmap) {
    this.ready.set(key, bitmap);
    for (const old of this.ready.keys()) {
      if (this.ready.size <= this.most) break;
      this.ready.get(old).close();
      this.ready.delete(old);
    }
  }
}

/** Draws either stain of a pair as sharply as it is at hand. */
class Pictures {
  constructor(pairs, onReady) {
    this.pairs = pairs;
    this.served = false;
    this.onReady = onReady;
    this.thumbs = new Shelf(THUMBS_KEPT);
    this.larger = new Shelf(PICTURES_KEPT);
    this.wanted = new Set();
    this.sheetLoader = new Loader((name, image) => this._cut(name, image));
    this.largerLoader = new Loader(async (name, image) => {
      this.larger.put(name, await createImageBitmap(image));
      this.onReady();
    });
  }

  sheetOf(number) { return "sheets/" + this.pairs.sheets[Math.floor(number / this.pairs.side ** 2)]; }

  largerOf(number) {
    const folder = this.served ? "tile" : this.pairs.pictures;
    return folder ? `${folder}/${this.pairs.content_id[number]}.jpg` : "";
  }

  /** Pairs that are seen, or soon will be, the most urgent first. */
  want(numbers) {
    this.wanted = new Set(numbers);
    this.thumbs.most = Math.max(THUMBS_KEPT, 2 * this.wanted.size);
    const missing = [...this.wanted].filter((number) => !this.thumbs.has(number));
    this.sheetLoader.want([...new Set(missing.map((number) => this.sheetOf(number)))]);
  }

  wantLarger(numbers) {
    const names = numbers.map((number) => this.largerOf(number));
    this.largerLoader.want(names.filter((name) => name && !this.larger.has(name)));
  }

  /** Draw both stains side by side from the contact sheet; false when it is not there yet. */
  drawPair(context, number, x, y, size) {
    const thumb = this.thumbs.get(number);
    if (thumb) context.drawImage(thumb, x, y, 2 * size, size);
    return Boolean(thumb);
  }

  /**
   * Draw one stain (0 H&E, 1 IHC) into a box, as sharply as it is at hand.
   * Returns the px of the tile that it was drawn from; 0 when nothing is there yet.
   */
  drawStain(context, number, stain, box) {
    const picture = this.larger.get(this.largerOf(number)) || this.thumbs.get(number);
    if (!picture) return 0;
    const px = picture.height;
    context.drawImage(picture, stain * px, 0, px, px, ...box);
    return px;
  }

  /** Keep of a sheet the pairs that are wanted now. */
  async _cut(name, image) {
    const { thumb, side } = this.pairs;
    for (const number of this.wanted) {
      if (this.sheetOf(number) !== name || this.thumbs.has(number)) continue;
      const place = number % side ** 2;
      const [left, top] = [(place % side) * 2 * thumb, Math.floor(place / side) * thumb];
      this.thumbs.put(number, await createImageBitmap(image, left, top, 2 * thumb, thumb));
    }
    this.onReady();
  }
}
