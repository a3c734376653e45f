/* What moves on the page: players whose lanes share a clock, and frames as tall as their page.

   The page turns one answer into the next by changing elements rather than replacing them, so
   events are caught on the whole player, and its parts are looked up when they are needed. */
"use strict";

(() => {
  /** A video, perhaps with a sound of its own, and lanes along its time; seconds on the file's
      clock: the video may be a copy that begins at `data-offset`. */
  class ClipPlayer extends HTMLElement {
    constructor() {
      super();
      const on = (events, act) => {
        for (const event of events.split(" ")) this.addEventListener(event, act, true);
      };
      on("timeupdate seeking seeked pause ended", () => this.show());
      on("loadedmetadata", ({ target }) =>
        target === this.video ? this.seek(this.from) : this.accompany());
      on("play", ({ target }) => target === this.video && this.play());
      on("seeked pause", ({ target }) => target === this.video && this.accompany());
      on("input", ({ target }) => target === this.slider && this.seek(Number(target.value)));
      on("click", (event) => this.go(event));
      const onlyVideo = (changes) => changes.some(({ target }) => target === this.video);
      new MutationObserver((changes) => onlyVideo(changes) && this.renew())
        .observe(this, { subtree: true, attributeFilter: ["src"] });
    }

    disconnectedCallback() {
      for (const media of this.querySelectorAll("video, audio")) media.pause();
    }

    get video() { return this.querySelector("video"); }
    get slider() { return this.querySelector("input[type=range]"); }
    get offset() { return Number(this.dataset.offset || 0); }
    get length() { return Number(this.dataset.length); }
    get from() { return Number(this.dataset.from || 0); } // the part that is played
    get to() { return Number(this.dataset.to || Infinity); }
    get clock() { return this.video.currentTime + this.offset; }

    seek(seconds) {
      this.video.currentTime = Math.max(0, seconds - this.offset);
      this.show(seconds);
    }

    /** A video element of its own for each clip: Chromium would keep a subtitle of the last one. */
    renew() {
      const { video } = this, copy = video.cloneNode(true);
      copy.volume = video.volume;
      video.replaceWith(copy);
    }

    /** A click on a segment or on the sound leads there. */
    go(event) {
      const part = event.target.closest(".segment");
      if (part) this.seek(Number(part.dataset.from) + 0.01);
      else if (event.target.matches(".across img")) {
        this.seek((event.offsetX / event.target.clientWidth) * this.length);
      }
    }

    play() {
      if (this.clock < this.from - 0.05 || this.clock >= this.to - 0.05) this.seek(this.from);
      this.accompany();
      const run = () => {
        if (this.clock >= this.to) this.video.pause();
        this.show();
        if (!this.video.paused) requestAnimationFrame(run);
      };
      run();
    }

    /** Brings the sound in place of the video's own in step with it. */
    accompany() {
      const audio = this.querySelector("audio");
      if (!audio) return;
      const seconds = Math.max(0, this.clock - this.from);
      if (Math.abs(audio.currentTime - seconds) > 0.15) audio.currentTime = seconds;
      if (this.video.paused) audio.pause();
      else if (seconds < audio.duration) audio.play();
    }

    show(seconds = this.clock) {
      if (!this.slider) return;
      this.style.setProperty("--at", Math.min(1, seconds / this.length));
      this.slider.value = seconds;
      const words = `${seconds.toFixed(1)} s`;
      this.slider.setAttribute("aria-valuetext", `${words} of ${this.length.toFixed(1)} s`);
      this.querySelector(".now").textContent = words;
      for (const part of this.querySelectorAll(".segment")) {
        const here = seconds >= Number(part.dataset.from) && seconds < Number(part.dataset.to);
        part.toggleAttribute("data-now", here);
      }
    }
  }

  /** An iframe that is as tall as the page in it, and makes that as dark as this one. */
  class FittedPage extends HTMLElement {
    constructor() {
      super();
      this.addEventListener("load", ({ target }) => {
        shade(target.contentDocument, document.body.classList.contains("dark"));
        const page = target.contentDocument.querySelector("main");
        const fit = () => {
          if (page.offsetHeight) target.style.height = `${page.offsetHeight + 4}px`;
        };
        new ResizeObserver(fit).observe(page);
      }, true);
    }
  }

  /** Dark or light, whatever the machine prefers. */
  function shade(page, dark) {
    page.documentElement.style.colorScheme = dark ? "dark" : "light";
    for (const { media } of page.styleSheets[0].cssRules) {
      if (media?.mediaText.includes("prefers-color-scheme")) {
        media.mediaText = dark ? "all" : "not all";
      }
    }
  }

  const hushed = new WeakSet(); // videos that must not be heard

  /** Keeps a video silent that is marked so, and lets it be heard when it no longer is. */
  function hush({ target }) {
    if ("mute" in target.dataset) {
      hushed.add(target);
      if (!target.muted) target.muted = true;
    } else if (hushed.delete(target)) target.muted = false;
  }

  if (!customElements.get("clip-player")) {
    customElements.define("clip-player", ClipPlayer);
    customElements.define("fitted-page", FittedPage);
    for (const event of ["play", "timeupdate", "volumechange"]) {
      document.addEventListener(event, hush, true);
    }
  }
})();
