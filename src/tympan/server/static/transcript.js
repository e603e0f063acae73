// The transcript as data: final words in segments, and the partial that may still change.

const SAME_TIME_SECONDS = 0.02;

export class Transcript {
  /** `{start, end, text, words}` each; a word is `{text, start, end, confidence}`. */
  segments = [];
  /** Final words after the last segment. */
  open = [];
  /** The text after the last final word. */
  pending = "";
  /** Called after every change. */
  onChange = () => {};

  word(word) {
    const last = this.open.at(-1);
    if (word.glued && last) {
      const confidence = Math.min(last.confidence, word.confidence);
      this.open.splice(-1, 1, { ...last, text: last.text + word.text, end: word.end, confidence });
    } else {
      this.open.push(word);
    }
    this.pending = "";
    this.onChange();
  }

  partial(text) {
    if (text === this.pending) return;
    this.pending = text;
    this.onChange();
  }

  /** Close the segment at a pause. */
  segment({ text, start, end }) {
    const count = this.open.filter((word) => word.end <= end + SAME_TIME_SECONDS).length;
    const words = this.open.splice(0, count);
    if (count === 0) return;
    // After a restart the server has only the second half of the segment.
    const whole = Math.abs(words[0].start - start) <= SAME_TIME_SECONDS;
    this.segments.push(whole ? { start, end, text, words } : joined(words));
    this.onChange();
  }

  /** Return all segments; the last one has the words since the last pause. */
  get all() {
    return this.open.length > 0 ? [...this.segments, joined(this.open)] : this.segments;
  }

  /** Close the last segment at the end of the recording. */
  close() {
    this.replace(this.all);
  }

  get wordCount() {
    return this.segments.reduce((sum, segment) => sum + segment.words.length, this.open.length);
  }

  get isEmpty() {
    return this.segments.length === 0 && this.open.length === 0;
  }

  replace(segments) {
    this.segments = segments;
    this.open = [];
    this.pending = "";
    this.onChange();
  }
}

function joined(words) {
  const text = words.map((word) => word.text).join(" ");
  return { start: words[0].start, end: words.at(-1).end, text, words };
}
