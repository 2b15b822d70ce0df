"use strict";
// A contact sheet as one writes it in an hour: an element for every pair, all decisions saved at every key.
const data = JSON.parse(document.getElementById("data").textContent);
const cells = data.content_id.map((id, number) => {
  const cell = document.createElement("div");
  const place = number % data.side ** 2, x = (place % data.side) * 2 * data.thumb, y = Math.floor(place / data.side) * data.thumb;
  cell.style.cssText = `display:inline-block;margin:5px;border:3px solid #ccc;width:${2 * data.thumb}px;height:${data.thumb}px;` +
    `background:url(sheets/${data.sheets[Math.floor(number / data.side ** 2)]}) -${x}px -${y}px`;
  document.body.append(cell);
  return cell;
});
const decisions = {};
let at = 0;
const taken = (window.taken = []);
addEventListener("keydown", (event) => {
  const choice = event.key === "k" ? "keep" : "drop";
  decisions[data.content_id[at]] = { tile: data.tile_id[at], choice, key: event.key };
  localStorage.setItem("decisions", JSON.stringify(decisions));
  cells[at].style.borderColor = choice === "keep" ? "green" : "red";
  at += 1;
  cells[at].style.borderColor = "blue";
  cells[at].scrollIntoView({ block: "nearest" });
  const began = event.timeStamp;
  requestAnimationFrame(() => requestAnimationFrame(() => taken.push(performance.now() - began)));
});
