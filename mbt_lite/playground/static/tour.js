// The guided tour: seven steps, each with one thing to do and one thing to see.

import { $, make, open } from "./shared.js";

const STEPS = [
  ["singer", "play", /^play$/, "Press “Play the sound”, and watch the shapes.",
    "One shape goes up and down as the tone does. The network noticed, too: its bar is long."],
  ["singer", "pitch", /^bend$/, "Drag the white line onto the dotted line of another shape.",
    "While the pitch bends, the bars tip: only the sound changed, the picture is the same."],
  ["singer", "flat", /^flat$/, "Press “Flat”.",
    "A tone that goes with no shape: all bars fall. It takes both, sound and picture, to tell."],
  ["way", "diagram", /^(silence|cut)$/, "Press a numbered bottleneck token to silence it; then others.",
    "All that sound and picture tell each other goes through these tokens. Compare the logit, the raw score of the answer, before and after."],
  ["way", "way-color", /^color cause$/, "Let the bands show “cause”.",
    "Wide attention is not the same as a strong effect: some thin bands matter most."],
  ["bottlenecks", "trial", /^trial$/, "Press “Try 20 new clips”.",
    "Without a bottleneck the networks guess. A single token, in early layers, is nearly as good as many."],
  ["you", "live", /^live$/, "Start camera and microphone, if you like. Nothing leaves this page.",
    "Cover the camera or mute the microphone: each stream alone knows less than both."],
];
let at = 0, done = false, lit = null;

function show() {
  const [view, target, , task, sight] = STEPS[at];
  open(view);
  lit?.classList.remove("lit");
  lit = $(target);
  lit.classList.add("lit");
  lit.scrollIntoView({ block: "center", behavior: "smooth" });
  const last = at === STEPS.length - 1;
  $("tour").replaceChildren(
    make("p", { class: "small" }, `Step ${at + 1} of ${STEPS.length}`),
    make("p", {}, make("b", {}, done ? "✓ Done: " : "Do: "), task),
    make("p", { "aria-live": "polite" }, ...(done ? [make("b", {}, "See: "), sight] : [])),
    make("div", { class: "row" }, make("button", { click: () => go(-1), ...(at ? {} : { disabled: "" }) }, "Back"),
      make("button", { click: () => (last ? end() : go(1)) }, last ? "Finish" : done ? "Next" : "Skip"),
      ...(last ? [] : [make("button", { click: end }, "End the tour")])),
  );
  $("tour").hidden = false;
  document.body.classList.add("touring");
}

function go(by) {
  [at, done] = [at + by, false];
  show();
}

function end() {
  $("tour").hidden = true;
  document.body.classList.remove("touring");
  lit?.classList.remove("lit");
  $("tour-start").focus();
}

export function startTour() {
  $("tour-start").addEventListener("click", () => { at = 0; go(0); $("tour").querySelector("button:not(:disabled)").focus(); });
  addEventListener("did", ({ detail }) => {
    if ($("tour").hidden || done || !STEPS[at][2].test(detail)) return;
    done = true;
    show();
  });
}
