"use strict";
// A pair seen near: both stains move and grow together, and the pointer marks the same place on both.

const lens = { x: 0.5, y: 0.5, scale: 1, pointer: null }; // middle in shares of the tile; 1: the whole tile fits

function drawLens() {
  const [context, width, height] = fitted($("lens")), number = current();
  context.clearRect(0, 0, width, height);
  if (number < 0) return;
  const pane = (width - 8) / 2, px = lensPx();
  let from = 0;
  for (const place of [0, 1]) {
    const stain = flicker && place === 0 && turned ? 1 : place, left = place * (pane + 8);
    context.save();
    context.beginPath();
    context.rect(left, 0, pane, height);
    context.clip();
    context.imageSmoothingEnabled = lens.scale < 4;
    from = pictures.drawStain(context, number, stain, [left + pane / 2 - lens.x * px, height / 2 - lens.y * px, px, px]);
    context.restore();
    tagStain(context, stain, left + 6, 6);
    if (lens.pointer) drawCross(context, left + lens.pointer[0], lens.pointer[1]);
  }
  const parts = [element("b", `${pairs.tile_id[number]} – ${said(number)}`), element("span", `${at + 1} of ${shown.length}`)];
  parts.push(element("span", from ? `${from} px a side, shown at ${Math.round(px / from * 100)} %` : "loading"));
  const why = pairs.word("why", number);
  if (why) parts.push(Object.assign(element("span", why), { className: "warn" }));
  $("lens-about").replaceChildren(...parts);
}

const lensPx = () => lens.scale * Math.min(($("lens").clientWidth - 8) / 2, $("lens").clientHeight);

/** The same place on both stains. */
function drawCross(context, x, y) {
  context.strokeStyle = colors.failed;
  context.lineWidth = 1;
  context.beginPath();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    context.moveTo(x + 4 * dx, y + 4 * dy);
    context.lineTo(x + 14 * dx, y + 14 * dy);
  }
  context.stroke();
}

function lensPlace(event) {
  const box = $("lens").getBoundingClientRect(), pane = (box.width - 8) / 2;
  const x = event.clientX - box.left;
  return [x > pane + 8 ? x - pane - 8 : x, event.clientY - box.top, pane, box.height];
}

function wheelLens(event) {
  event.preventDefault();
  const [x, y, width, height] = lensPlace(event), before = lensPx();
  lens.scale = Math.max(1, Math.min(24, lens.scale * Math.exp(-event.deltaY / 500)));
  const after = lensPx(); // the point under the pointer stays where it is
  lens.x += (x - width / 2) * (1 / before - 1 / after);
  lens.y += (y - height / 2) * (1 / before - 1 / after);
  holdLens();
}

function moveLens(event) {
  const [x, y] = lensPlace(event);
  if (event.buttons & 1) {
    lens.x -= event.movementX / lensPx();
    lens.y -= event.movementY / lensPx();
  }
  lens.pointer = [x, y];
  holdLens();
}

function holdLens() {
  const most = 0.5 - Math.min(0.5, 0.5 / lens.scale);
  lens.x = Math.max(0.5 - most, Math.min(0.5 + most, lens.x));
  lens.y = Math.max(0.5 - most, Math.min(0.5 + most, lens.y));
  soon();
}

function toggleZoom() {
  if ($("zoom").open) { $("zoom").close(); soon(); } else if (current() >= 0) {
    Object.assign(lens, { x: 0.5, y: 0.5, scale: 1, pointer: null });
    $("zoom").showModal();
    soon();
  }
}
