// The microphone as a source of audio. It keeps the last minute, so that a lost connection loses no words.

const KEEP_SECONDS = 60;
const BYTES_PER_SAMPLE = 2;
const HIGHEST_RATE = 48000;

// Recognizers are trained on unprocessed rooms. Echo cancellation and noise suppression, which are made for calls,
// remove the beginnings of words, and this page plays no sound. Gain control helps quiet microphones.
const CONSTRAINTS = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true };

/** The microphone is not available; the message says why and what to do. */
export class MicrophoneError extends Error {}

export class Microphone {
  live = true;
  /** Called with every chunk, an Int16Array. */
  onChunk = () => {};
  /** Called when the device is disconnected. */
  onLost = () => {};
  #context;
  #track;
  #node;
  #chunks = []; // the newest KEEP_SECONDS
  #stream = null;
  #began = 0; // time of the stream's first sample
  #ended;

  static async open() {
    const media = await openDevice();
    const context = await openContext();
    await context.audioWorklet.addModule(new URL("capture-worklet.js", import.meta.url));
    await context.resume();
    return new Microphone(context, media);
  }

  constructor(context, media) {
    this.#context = context;
    this.#track = media.getAudioTracks()[0];
    this.#track.addEventListener("ended", () => this.onLost());
    this.#node = new AudioWorkletNode(context, "capture", { channelCount: 1, channelCountMode: "explicit" });
    this.#ended = new Promise((resolve) => {
      this.#node.port.onmessage = ({ data }) => (data === null ? resolve() : this.#keep(data));
    });
    context.createMediaStreamSource(media).connect(this.#node);
    // The worklet outputs silence; some browsers do not run a graph without a destination.
    this.#node.connect(context.destination);
    this.parameters = { encoding: "s16le", sample_rate: context.sampleRate };
    this.bytesPerSecond = context.sampleRate * BYTES_PER_SAMPLE;
    this.seconds = 0;
  }

  #keep(bytes) {
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

  /** Switch the microphone off; resolves when the last chunk has been sent. */
  async stop() {
    if (this.#context.state === "running") {
      this.#node.port.postMessage("end");
      await this.#ended;
    }
    this.#track.stop();
    if (this.#context.state !== "closed") await this.#context.close();
  }
}

async function openDevice() {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    throw new MicrophoneError(
      "Browsers allow the microphone only on https:// pages and on localhost. Open this page there; files work here.",
    );
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: CONSTRAINTS });
  } catch (error) {
    throw new MicrophoneError(messageFor(error));
  }
}

async function openContext() {
  const context = new AudioContext(); // at the device's own rate: the server resamples better than a browser must
  if (context.sampleRate <= HIGHEST_RATE) return context;
  await context.close();
  return new AudioContext({ sampleRate: HIGHEST_RATE });
}

function messageFor(error) {
  switch (error.name) {
    case "NotAllowedError":
      return "Access to the microphone was denied. Allow it in the browser's address bar, then start again.";
    case "NotFoundError":
      return "No microphone was found. Connect one, then start again; files work without one.";
    case "NotReadableError":
      return "The microphone is in use by another application. Close that one, then start again.";
    default:
      return `The microphone could not be opened (${error.message || error.name}).`;
  }
}
