// Bottlenecks: the same clip for networks that differ in the bottleneck alone.

import { $, ask, did, icon, latest, make, percent, rgb, clip } from "./shared.js";
import { newScene, scene, sings } from "./singer.js";
import { height, SHAPES } from "./world.js";

let rows = null; // of the table, one for each network

async function build() {
  const { grid } = await (await fetch("models.json")).json();
  rows = [];
  for (const [heading, group] of Object.entries(grid)) {
    const body = make("tbody", {}, make("tr", {}, make("th", { scope: "rowgroup", colspan: 5 }, heading)));
    $("grid").append(body);
    for (const [words, name] of Object.entries(group)) {
      const bars = SHAPES.map(() => make("b")), says = make("td", {}, "…"), tries = make("td", {}, "–");
      const mini = make("div", { class: "mini", role: "img" }, ...bars.map((bar, i) =>
        make("div", { class: "small" }, SHAPES[i], make("i", {}, bar))));
      const { scores } = await ask("open", { name });
      const [, score] = Object.entries(scores).find(([what]) => what.startsWith("matched accuracy"));
      const title = make("th", { scope: "row" }, words), measured = make("td", {}, percent(score));
      body.append(make("tr", {}, title, says, make("td", {}, mini), tries, measured));
      rows.push({ name, bars, says, mini, tries, right: 0, count: 0 });
    }
  }
}

/** The shape whose height the pitch follows best, by correlation; null: it follows none. */
function closest() {
  const correlate = (thing) => {
    const { points } = clip, mean = (x) => x.reduce((a, b) => a + b) / x.length;
    const heights = points.map((_, i) => height(thing.contour, i / (points.length - 1)));
    const [a, b] = [points, heights].map((x) => x.map((v) => v - mean(x)));
    const dot = (x, y) => x.reduce((sum, v, i) => sum + v * y[i], 0);
    return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b) || 1);
  };
  const [best] = clip.scene.things.map((thing) => [correlate(thing), thing]).sort((a, b) => b[0] - a[0]);
  return best[0] > 0.9 ? best[1] : null;
}

const refresh = latest(async () => {
  if (!rows) await build();
  const singer = closest();
  $("grid-truth").replaceChildren(...(singer
    ? ["Your pitch follows the ", icon(singer.shape, rgb(singer.color)), ` ${singer.shape}.`] : ["Your pitch follows no shape closely."]));
  let able = 0;
  for (const row of rows) {
    const shares = sings((await ask("ask", { name: row.name, scene: scene(), edits: [] })).probabilities);
    const top = Math.max(...shares), shape = SHAPES[shares.indexOf(top)], right = shape === singer?.shape;
    row.says.textContent = `${shape}, ${percent(top)}${singer ? (right ? " ✓" : " ✗") : ""}`;
    row.says.className = `says ${singer ? (right ? "right" : "wrong") : ""}`;
    able += right;
    row.bars.forEach((bar, i) => { bar.style.transform = `scaleX(${shares[i]})`; });
    row.mini.setAttribute("aria-label", SHAPES.map((s, i) => `${s} ${percent(shares[i])}`).join(", "));
  }
  $("grid-verdict").textContent = singer ? `${able} of ${rows.length} answers are right about your clip. One clip can be luck: try more.`
    : "Follow a shape in the first view, then there is something to find out.";
  $("trial").disabled = false;
});

/** All networks try the same 20 new clips, and those of earlier presses count on. */
async function trial() {
  $("trial").disabled = true;
  const seed = Math.floor(Math.random() * 1e9), count = 5;
  try {
    for (let part = 0; part < 4; part++) for (const row of rows) {
      const { right } = await ask("trial", { name: row.name, seed: seed + part * count, count });
      row.right += right;
      row.count += count;
      row.tries.textContent = `${row.right} of ${row.count}`;
    }
    did("trial");
  } finally {
    $("trial").disabled = false;
  }
}

$("trial").addEventListener("click", trial);
$("grid-scene").addEventListener("click", () => { newScene(); refresh(); });

export const bottlenecks = { show: refresh };
