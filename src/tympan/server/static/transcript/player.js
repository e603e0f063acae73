// Plays the transcribed audio from a word. The audio of one transcript consists of tracks, each a recording.

const KEEP_SECONDS = 3600; // of a live recording
const LISTENING_RATE = 24_000;
const BLOCK_SECONDS = 10;
const HEADER_BYTES = 44;

export class Player {
  /** `{start, end, blob}` each, in seconds of the transcript. */
  tracks = [];
  /** Called with the time in the transcript while playing, and with null at the end. */
  onTime = () => {};
  /** Called if the browser cannot play the audio. */
  onError = () => {};
  #audio = new Audio();
  #track = null;
  #timer = 0;

  constructor() {
    this.#audio.addEventListener("ended", () => this.stop());
    this.#audio.addEventListener("error", () => {
      if (this.#track) this.onError();
      this.stop();
    });
  }

  get isPlaying() {
    return this.#track !== null;
  }

  /** Return whether there is audio of this time. */
  has(seconds) {
    return this.#find(seconds) !== undefined;
  }

  play(seconds) {
    this.stop();
    const track = this.#find(seconds);
    if (!track) return;
    this.#track = track;
    this.#audio.src = URL.createObjectURL(track.blob);
    this.#audio.currentTime = seconds - track.start;
    this.#audio.play().catch(() => {}); // `error` reports it, or `stop` was called
    this.#timer = setInterval(() => this.onTime(track.start + this.#audio.currentTime), 100);
  }

  stop() {
    if (!this.#track) return;
    this.#track = null;
    clearInterval(this.#timer);
    this.#audio.pause();
    URL.revokeObjectURL(this.#audio.src);
    this.onTime(null);
  }

  #find(seconds) {
    return this.tracks.findLast((track) => track.start <= seconds + 0.001 && seconds < track.end);
  }
}

/** Keeps the last hour of a live recording for listening. */
export class Tape {
  #start;
  #rate;
  #skip;
  #block = [];
  #length = 0; // samples in #block
  #blocks = []; // Blobs of BLOCK_SECONDS, which browsers may move to the disk

  /** `start` is the time of the first sample in the transcript. */
  constructor(start, sampleRate) {
    this.#start = start;
    this.#skip = sampleRate >= 2 * LISTENING_RATE ? 2 : 1;
    this.#rate = sampleRate / this.#skip;
  }

  push(samples) {
    const kept = this.#skip === 1 ? samples : halved(samples);
    this.#block.push(kept);
    this.#length += kept.length;
    if (this.#length >= BLOCK_SECONDS * this.#rate) this.#close();
  }

  #close() {
    const seconds = this.#length / this.#rate;
    this.#blocks.push({ seconds, length: this.#length, blob: new Blob(this.#block) });
    [this.#block, this.#length] = [[], 0];
    if (this.#blocks.length * BLOCK_SECONDS > KEEP_SECONDS) this.#start += this.#blocks.shift().seconds;
  }

  /** Return the track. */
  finish() {
    this.#close();
    const length = this.#blocks.reduce((sum, block) => sum + block.length, 0);
    const parts = [header(length, this.#rate), ...this.#blocks.map((block) => block.blob)];
    const blob = new Blob(parts, { type: "audio/wav" });
    return { start: this.#start, end: this.#start + length / this.#rate, blob };
  }
}

function halved(samples) {
  const half = new Int16Array(samples.length >> 1);
  for (let i = 0; i < half.length; i++) half[i] = (samples[2 * i] + samples[2 * i + 1]) >> 1;
  return half;
}

/** Return the header of a WAV of 16-bit mono samples. */
function header(samples, rate) {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, HEADER_BYTES - 8 + 2 * samples, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // mono
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples, true);
  return view.buffer;
}
