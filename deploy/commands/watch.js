"use strict";
// Follows a run: fetches its page every second and replaces the parts of <main> that have changed.

const PAUSE_MS = 1000;
const parts = new Map(); // HTML of the shown parts, by id; the page itself may differ, e.g. by an open <details>
let tag = "";

function remember(page) {
  for (const part of page.querySelectorAll("main > [id]")) parts.set(part.id, part.outerHTML);
}

function swap(part) {
  const shown = document.getElementById(part.id);
  if (!shown) return document.querySelector("main").append(part);
  const places = [...shown.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
  shown.replaceWith(part);
  part.querySelectorAll(".scroll").forEach((box, i) => (box.scrollLeft = places[i] ?? 0));
}

async function look() {
  const answer = await fetch("/", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
  if (answer.status === 304) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const changed = [...page.querySelectorAll("main > [id]")].filter((part) => parts.get(part.id) !== part.outerHTML);
  remember(page);
  changed.forEach(swap);
  tag = answer.headers.get("ETag") ?? "";
}

function say(line) {
  document.getElementById("live").textContent = line;
  parts.delete("live");
}

async function follow() {
  if (document.querySelector("#live.ended")) return;
  try {
    await look();
  } catch {
    say("`fedmosaic watch` does not answer any more; the page shows its last answer");
    tag = "";
  }
  setTimeout(follow, PAUSE_MS);
}

remember(document);
setTimeout(follow, PAUSE_MS);
