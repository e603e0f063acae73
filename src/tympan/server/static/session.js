// One recording from its first sample to `complete`: joins a source to a stream, and to the next after a restart.

import { Refused, Stream } from "./stream.js";
import { whyRefused } from "./service.js";

const BACKOFF_SECONDS = [0.5, 1, 2, 4, 8, 8, 8, 8, 8];
const RESUMABLE = new Set([1005, 1006, 1012, 1013]); // cut off, restarting, too slow
const SAME_WORD_SECONDS = 0.02;

/** The server ended or refused the stream; the message is fit to be shown. */
export class SessionError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * `source` is a `Microphone` or a `Recording`; `start` is where it begins in the transcript, in seconds. Handlers:
 * `state` ("connecting", "running", "reconnecting", "finishing"), `lag` (the server's message, `processed` in the
 * source's time), `turn` ("started", "ended"), `warning` (a sentence), `complete` (seconds of audio).
 */
export class Session {
  #source;
  #transcript;
  #key;
  #on;
  #start;
  #stream = null;
  #offset = 0; // of this stream's time 0 in the source, seconds
  #reached = 0; // every word before this is in the transcript, seconds in the source
  #resumed = 0; // `#reached` when this stream was opened: words before it are heard for the second time
  #attempts = 0;
  #stopping = false;
  #completed = false;
  #failure = null;
  #wake = () => {};

  constructor(source, transcript, { key, start, on }) {
    this.#source = source;
    this.#transcript = transcript;
    this.#key = key;
    this.#start = start;
    this.#on = on;
  }

  /** Resolves when the recording is complete or was stopped, rejects with `SessionError`. */
  async run() {
    this.#on.state("connecting");
    while (await this.#oneStream()) {
      this.#on.state("reconnecting");
      await this.#pause(BACKOFF_SECONDS[this.#attempts++]);
      if (this.#stopping) return;
    }
  }

  /** Send what is left, then wait for the last words; called twice, do not wait. */
  async stop() {
    if (this.#stopping || !this.#stream?.isOpen || !this.#source.live) return this.abandon();
    this.#stopping = true;
    this.#on.state("finishing");
    await this.#source.stop();
    this.#stream.finish();
  }

  abandon() {
    this.#stopping = true;
    this.#completed = true;
    this.#stream?.close();
    this.#wake();
  }

  /** Seconds of audio that wait in the browser to be sent; 0 where bytes do not tell. */
  get unsentSeconds() {
    return (this.#stream?.waiting ?? 0) / (this.#source.bytesPerSecond ?? Infinity);
  }

  /** True when another stream is needed. */
  async #oneStream() {
    this.#completed = false;
    this.#resumed = this.#reached;
    try {
      this.#stream = await Stream.open(this.#source.parameters, this.#key, (message) => this.#receive(message));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return this.#mayRetry(await whyRefused(this.#key));
    }
    if (this.#stopping) this.#stream.close();
    this.#offset = this.#source.start(this.#stream, this.#resumed);
    this.#on.state("running");
    const code = await this.#stream.closed;
    this.#transcript.partial("");
    if (this.#completed && (code !== 1012 || this.#stopping)) return false;
    if (!RESUMABLE.has(code)) {
      throw this.#failure ?? new SessionError("closed", `The server closed the stream (code ${code}).`);
    }
    return this.#mayRetry({ code: "lost", message: "The connection to the server was lost." });
  }

  #mayRetry({ code, message }) {
    const began = this.#reached > 0 || code === "lost" || this.#attempts > 0;
    if (this.#stopping) return false;
    if (began && code !== "unauthorized" && this.#attempts < BACKOFF_SECONDS.length) return true;
    throw new SessionError(code, message);
  }

  #pause(seconds) {
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, seconds * 1000);
    });
  }

  #receive(message) {
    switch (message.type) {
      case "partial":
        return this.#transcript.partial(message.text);
      case "word":
        return this.#word(message);
      case "segment":
        return this.#transcript.segment(this.#shifted(message));
      case "turn":
        return this.#on.turn(message.state);
      case "lag":
        this.#attempts = 0;
        return this.#on.lag({ ...message, processed: message.processed + this.#offset });
      case "warning":
        return this.#on.warning(message.message);
      case "error":
        this.#failure = new SessionError(message.code, message.message);
        return;
      case "complete":
        this.#completed = true;
        this.#reached = Math.max(this.#reached, this.#offset + message.audio_seconds);
        this.#on.complete(this.#offset + message.audio_seconds);
    }
  }

  #word(message) {
    const start = message.start + this.#offset;
    if (start < this.#resumed - SAME_WORD_SECONDS) return;
    this.#reached = Math.max(this.#reached, message.end + this.#offset);
    this.#transcript.word(this.#shifted(message));
  }

  #shifted({ type, ...message }) {
    const by = this.#start + this.#offset;
    return { ...message, start: message.start + by, end: message.end + by };
  }
}
