// A source of 16-bit samples that arrive in real time. It keeps the last minute, so that a lost connection loses none.

const KEEP_SECONDS = 60;
const BYTES_PER_SAMPLE = 2;

export class LiveSource {
  live = true;
  /** Called with every chunk, an Int16Array. */
  onChunk = () => {};
  /** Seconds of audio so far. */
  seconds = 0;
  #chunks = []; // the newest KEEP_SECONDS
  #stream = null;
  #began = 0; // time of the stream's first sample

  /** `sampleRate` is 8000 to 48000 Hz; the samples are mono. */
  constructor(sampleRate) {
    this.parameters = { encoding: "s16le", sample_rate: sampleRate };
    this.bytesPerSecond = sampleRate * BYTES_PER_SAMPLE;
  }

  /** Add samples: an Int16Array, or the ArrayBuffer of one. */
  push(samples) {
    const bytes = samples instanceof ArrayBuffer ? samples : new Int16Array(samples).buffer;
    const start = this.seconds;
    this.seconds += bytes.byteLength / this.bytesPerSecond;
    this.#chunks.push({ start, end: this.seconds, bytes });
    while (this.#chunks[0].start < this.seconds - KEEP_SECONDS) this.#chunks.shift();
    this.#stream?.send(bytes);
    this.onChunk(new Int16Array(bytes));
  }

  /** Send the audio since `seconds` to this stream, then new audio; return the time of the first sample. */
  start(stream, seconds) {
    this.#began = this.#sendFrom(stream, seconds);
    return this.#began;
  }

  /** Continue on another connection after the bytes that the server has received. */
  resume(stream, bytes) {
    this.#sendFrom(stream, this.#began + bytes / this.bytesPerSecond);
  }

  #sendFrom(stream, seconds) {
    this.#stream = stream;
    const missed = this.#chunks.filter((chunk) => chunk.end > seconds);
    if (missed.length === 0) return this.seconds;
    const [first, ...rest] = missed;
    const skipped = Math.max(0, Math.round((seconds - first.start) * this.parameters.sample_rate));
    stream.send(first.bytes.slice(skipped * BYTES_PER_SAMPLE));
    for (const chunk of rest) stream.send(chunk.bytes);
    return first.start + skipped / this.parameters.sample_rate;
  }

  /** Pause or continue; a subclass stops its device meanwhile. */
  async setPaused() {}

  /** End the audio; resolves when the last chunk has been sent. */
  async stop() {}
}
