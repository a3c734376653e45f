// Starts the page: its views, its tabs, its tour.

import { addView, open } from "./shared.js";
import { bottlenecks } from "./bottlenecks.js";
import { singer } from "./singer.js";
import { startTour } from "./tour.js";
import { way } from "./way.js";
import { you } from "./you.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => open(tab.id.slice(4)));
  tab.addEventListener("keydown", ({ key }) => {
    const next = tabs[(i + (key === "ArrowRight" ? 1 : key === "ArrowLeft" ? tabs.length - 1 : 0)) % tabs.length];
    if (next !== tab) { next.focus(); next.click(); }
  });
});
addEventListener("hashchange", () => open(location.hash.slice(1)));

const views = { singer, way, bottlenecks, you };
for (const [name, view] of Object.entries(views)) addView(name, view);
startTour();
open(location.hash.slice(1) in views ? location.hash.slice(1) : "singer");
