"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const view = document.getElementById("view");
const pointed = make("p", { id: "pointed", "aria-live": "polite" }); // below each figure
const SVG = document.createRange().createContextualFragment("<svg></svg>").firstChild.namespaceURI;

/** An HTML element with these attributes and children. */
function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for an SVG element. */
function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function say(sentence) {
  const capital = sentence.charAt(0).toUpperCase() + sentence.slice(1);
  document.getElementById("words").textContent = /[.!?]$/.test(capital) ? capital : capital + ".";
}

/** What is under the pointer, or has the focus. */
function tell(sentence) {
  pointed.textContent = sentence;
}

/** A number with three significant digits. */
function number(value) {
  return String(Number(value.toPrecision(3))).replace("-", "\u2212");
}

function percent(share) {
  return share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

/** The bytes of a base64 text. */
function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/**
 * One labelled control per choice; `changed(state)` is called when a person turns one.
 * Returns the state and `set(name, index)`, which moves a control without that call.
 */
function controls(choices, changed) {
  const state = {}, turn = {};
  for (const choice of choices) {
    const control = choice.slider ? slider(choice) : menu(choice);
    turn[choice.name] = control.set;
    control.input.addEventListener("input", () => {
      state[choice.name] = Number(control.input.value);
      control.set(state[choice.name]);
      changed(state, choice.name);
    });
    document.getElementById("controls").append(control.label);
    control.set((state[choice.name] = choice.start));
  }
  const set = (name, index) => turn[name]((state[name] = index));
  return { state, set };
}

function menu(choice) {
  const options = choice.options.map((words, index) => make("option", { value: index }, words));
  const input = make("select", { name: choice.name }, ...options);
  const set = (index) => { input.value = index; };
  return { input, set, label: make("label", {}, choice.label, input) };
}

function slider(choice) {
  const last = choice.options.length - 1;
  const id = `turn-${choice.name}`;
  const input = make("input", { id, type: "range", name: choice.name, min: 0, max: last, step: 1 });
  const shown = make("output");
  const label = make("label", { class: "slider", for: id }); // or it would be that of the output
  label.append(make("span", {}, `${choice.label} `, shown), input);
  const set = (index) => {
    input.value = index;
    shown.textContent = choice.options[index];
    input.setAttribute("aria-valuetext", choice.options[index]);
  };
  return { input, set, label };
}

/** Parts of a figure that tell their sentence under the pointer and at the keyboard's focus. */
function telling(part, sentence) {
  filled(part, { role: "img", "aria-label": sentence, tabindex: -1 }, []);
  for (const event of ["pointerenter", "pointerdown", "focus"]) {
    part.addEventListener(event, () => tell(sentence));
  }
  return part;
}

/** One of these parts is reached by Tab, the others from there by the arrow keys. */
function roving(parts) {
  parts.forEach((part, place) => {
    part.setAttribute("tabindex", place ? -1 : 0);
    part.addEventListener("keydown", (event) => {
      const forth = ["ArrowDown", "ArrowRight"].includes(event.key);
      const back = ["ArrowUp", "ArrowLeft"].includes(event.key);
      const next = parts[place + forth - back];
      if (!(forth || back)) return;
      event.preventDefault();
      if (next) focusOn(next, parts);
    });
  });
}

function focusOn(part, parts) {
  parts.forEach((one) => one.setAttribute("tabindex", one === part ? 0 : -1));
  part.focus();
}

/** Round numbers between two ends, about `count` of them. */
function ticks(low, high, count = 5) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(last - first + 1, 0) }, (_, k) => (first + k) * step);
}

/** Draws now, and again whenever the width of `element` is another. */
function atEachWidth(element, drawAt) {
  let width = 0;
  new ResizeObserver(() => {
    if (element.clientWidth !== width) drawAt((width = element.clientWidth));
  }).observe(element);
}
