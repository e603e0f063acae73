// The transcript as data: released words, gathered into segments at pauses, and the partial that may still change.

const SAME_TIME_SECONDS = 0.02;

export class Transcript {
  /** `{start, end, text, words}` each; a word is `{text, start, end, confidence}`. */
  segments = [];
  /** Released words after the last segment. */
  open = [];
  /** What is heard after the last released word. */
  pending = "";
  /** Called after every change. */
  onChange = () => {};

  word(word) {
    this.open.push(word);
    this.pending = "";
    this.onChange();
  }

  partial(text) {
    if (text === this.pending) return;
    this.pending = text;
    this.onChange();
  }

  /** Close the words up to a pause into a segment. */
  segment({ text, start, end }) {
    const count = this.open.filter((word) => word.end <= end + SAME_TIME_SECONDS).length;
    const words = this.open.splice(0, count);
    if (count === 0) return;
    // After a lost connection the server knows only the second half of a segment that was cut.
    const whole = Math.abs(words[0].start - start) <= SAME_TIME_SECONDS;
    this.segments.push(whole ? { start, end, text, words } : joined(words));
    this.onChange();
  }

  /** Every segment, the words that still wait for a pause as the last one. */
  get all() {
    return this.open.length > 0 ? [...this.segments, joined(this.open)] : this.segments;
  }

  /** The recording ended: no word waits any longer. */
  close() {
    this.segments = this.all;
    this.open = [];
    this.pending = "";
    this.onChange();
  }

  get wordCount() {
    return this.segments.reduce((sum, segment) => sum + segment.words.length, this.open.length);
  }

  get isEmpty() {
    return this.segments.length === 0 && this.open.length === 0;
  }

  /** Replace everything; returns what was there, fit to be given back. */
  replace(segments = []) {
    const before = this.all;
    this.segments = segments;
    this.open = [];
    this.pending = "";
    this.onChange();
    return before;
  }
}

function joined(words) {
  const text = words.map((word) => word.text).join(" ");
  return { start: words[0].start, end: words.at(-1).end, text, words };
}
