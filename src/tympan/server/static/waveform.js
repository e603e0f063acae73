// Draws audio as bars: the latest audio of a microphone, or a whole file with the transcribed part in colour.

const BAR_PIXELS = 3;
const GAP_PIXELS = 2;
const LOUDNESS_POWER = 0.5; // quiet speech stays visible beside loud speech

export class Waveform {
  #canvas;
  #levels = []; // newest last
  #pushed = 0;
  #outline = null; // of a whole file
  #fraction = 0;
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  #due = false;

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#schedule()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#schedule());
  }

  /** Return the number of bars that fit. */
  get bars() {
    return Math.max(1, Math.floor(this.#canvas.clientWidth / (BAR_PIXELS + GAP_PIXELS)));
  }

  reset() {
    this.#levels = [];
    this.#pushed = 0;
    this.#outline = null;
    this.#fraction = 0;
    this.#schedule();
  }

  /** Add a peak, 0 to 1. */
  push(level) {
    this.#levels.push(level);
    this.#pushed += 1;
    if (this.#levels.length > 1000) this.#levels.splice(0, 500);
    this.#schedule();
  }

  /** Show the levels of a whole file, 0 to 1; a line until they are known. */
  showFile(outline = [0]) {
    this.#outline = outline;
    this.#schedule();
  }

  /** Show the transcribed share of the file, 0 to 1. */
  progress(fraction) {
    this.#fraction = fraction;
    this.#schedule();
  }

  #schedule() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      this.#draw();
    });
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const ratio = window.devicePixelRatio || 1;
    this.#canvas.width = Math.round(width * ratio);
    this.#canvas.height = Math.round(height * ratio);
    const context = this.#canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(this.#canvas);
    const colours = { done: style.getPropertyValue("--accent"), rest: style.getPropertyValue("--line-strong") };
    const count = this.bars;
    for (let i = 0; i < count; i++) {
      const { level, done } = this.#outline ? this.#fileBar(i, count) : this.#liveBar(i, count);
      drawBar(context, i, level, height, done ? colours.done : colours.rest);
    }
  }

  #fileBar(i, count) {
    const level = this.#outline[Math.floor((i * this.#outline.length) / count)];
    return { level, done: (i + 0.5) / count < this.#fraction };
  }

  #liveBar(i, count) {
    // Bars move to the left. With reduced motion they stay in place, and a gap moves over them.
    const age = this.#still.matches ? (this.#pushed - 1 - i + count * 1000) % count : count - 1 - i;
    const gap = this.#still.matches && age > count - 3;
    const level = gap ? 0 : (this.#levels.at(-1 - age) ?? 0);
    return { level: level ** LOUDNESS_POWER, done: level > 0 };
  }
}

function drawBar(context, i, level, height, colour) {
  const length = Math.max(BAR_PIXELS, level * height);
  context.fillStyle = colour;
  context.beginPath();
  context.roundRect(i * (BAR_PIXELS + GAP_PIXELS), (height - length) / 2, BAR_PIXELS, length, BAR_PIXELS / 2);
  context.fill();
}
