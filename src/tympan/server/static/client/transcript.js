// The transcript as data: final words in segments, and the partials that may still change.

const SAME_TIME_SECONDS = 0.02;

export class Transcript {
  /** `{start, end, text, words}` each, by start; a word is `{text, start, end, confidence}`. With `channel` for 2. */
  segments = [];
  /** Of each channel: the final words after its last segment. */
  open = [[]];
  /** Of each channel: the text after its last final word. */
  pending = [""];
  /** Of each channel: whether that text continues the word without a space. */
  pendingGlued = [false];
  /** Called after every change. */
  onChange = () => {};

  /** Return the number of channels. */
  get channels() {
    return this.open.length;
  }

  word(word) {
    const open = this.open[word.channel ?? 0];
    const last = open.at(-1);
    if (word.glued && last) {
      const confidence = Math.min(last.confidence, word.confidence);
      open.splice(-1, 1, { ...last, text: last.text + word.text, end: word.end, confidence });
    } else {
      open.push(word);
    }
    this.pending[word.channel ?? 0] = "";
    this.onChange();
  }

  partial(text, channel = 0, glued = false) {
    if (text === this.pending[channel] && glued === this.pendingGlued[channel]) return;
    this.pending[channel] = text;
    this.pendingGlued[channel] = glued;
    this.onChange();
  }

  /** Close the segment at a pause. */
  segment({ text, start, end, channel }) {
    const open = this.open[channel ?? 0];
    const count = open.filter((word) => word.end <= end + SAME_TIME_SECONDS).length;
    const words = open.splice(0, count);
    if (count === 0) return;
    // After a restart the server has only the second half of the segment.
    const whole = Math.abs(words[0].start - start) <= SAME_TIME_SECONDS;
    this.#add(whole ? { start, end, text, words, ...(channel === undefined ? {} : { channel }) } : joined(words));
    this.onChange();
  }

  #add(segment) {
    const after = this.segments.findLastIndex((other) => other.start <= segment.start);
    this.segments.splice(after + 1, 0, segment);
  }

  /** Return all segments; the last one of each channel has the words since the last pause. */
  get all() {
    const last = this.open.filter((words) => words.length > 0).map(joined);
    if (last.length === 0) return this.segments;
    return [...this.segments, ...last].sort((one, other) => one.start - other.start);
  }

  /** Return the final text, a line for each segment. */
  get text() {
    return this.all.map((segment) => segment.text).join("\n");
  }

  /** Close the last segments at the end of the recording. */
  close() {
    this.replace(this.all, this.channels);
  }

  get wordCount() {
    const words = [...this.segments.map((segment) => segment.words), ...this.open];
    return words.reduce((sum, { length }) => sum + length, 0);
  }

  get isEmpty() {
    return this.segments.length === 0 && this.open.every((words) => words.length === 0);
  }

  replace(segments, channels = 1) {
    this.segments = segments;
    this.open = Array.from({ length: channels }, () => []);
    this.pending = this.open.map(() => "");
    this.pendingGlued = this.open.map(() => false);
    this.onChange();
  }
}

function joined(words) {
  const text = words.map((word) => word.text).join(" ");
  const { channel } = words[0];
  return { start: words[0].start, end: words.at(-1).end, text, words, ...(channel === undefined ? {} : { channel }) };
}
