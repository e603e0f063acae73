// One recording from its first sample to `complete`: connects a source to a stream, and to a new one after a restart.
// A lost connection is resumed if the server has kept the stream: see docs/protocols/native.md.

import { Refused } from "./stream.js";

const BACKOFF_SECONDS = [0.5, 1, 2, 4, 8, 8, 8, 8, 8];
const LOST = 1006;
const RETRIED_CODES = new Set([1005, LOST, 1011, 1012, 1013]); // lost, internal error, restarting, slow reader
const NOT_COUNTED = new Set(["partial", "lag", "resumed"]); // in the number of messages received
const NEVER_DELAYED = new Set(["error", "resumed"]);
const SAME_WORD_SECONDS = 0.02;
const MAX_RELEASE_SECONDS = 30; // a word is final at most this long after the audio that follows it was transcribed
const KEEP_ALIVE_SECONDS = 20;
const NO_HANDLERS = Object.fromEntries(
  ["state", "lag", "turn", "warning", "word", "complete"].map((name) => [name, () => {}]),
);

/** The server has ended or refused the stream; the message can be shown. */
export class SessionError extends Error {
  constructor(code, message, details = {}) {
    super(message);
    this.code = code;
    this.details = details;
  }
}

/**
 * `source` is a `LiveSource` (as a `Microphone`) or a `Recording`; `start` is where it begins in the transcript, in
 * seconds. Handlers, all optional: `state` ("connecting", "running", "reconnecting", "finishing"), `lag` (the server's
 * message, `processed` in the source's time), `turn` ("started", "ended"), `warning` (a sentence and its code), `word`
 * (a final word, in the transcript's time), `complete` (seconds of audio).
 */
export class Session {
  #server;
  #source;
  #transcript;
  #on;
  #start;
  #stream = null;
  #offset = 0; // of this stream's time 0 in the source, seconds
  #reached; // of each channel: every word before this time is in the transcript, seconds in the source
  #resumed; // `#reached` when this stream was opened: words before it are repeated
  #token = ""; // to resume this stream on a new connection
  #received = 0; // messages of this stream, as the server counts them
  #delayed = null; // messages after `restarting`: the next stream transcribes their audio again, without a cut
  #attempts = 0;
  #paused = null; // the timer that keeps the stream open
  #stopping = false;
  #ended = false; // the source has ended
  #abandoned = false;
  #completed = false;
  #failure = null;
  #wake = () => {};

  constructor(server, source, transcript, { start = 0, on = {} } = {}) {
    this.#server = server;
    this.#source = source;
    this.#transcript = transcript;
    this.#start = start;
    this.#on = { ...NO_HANDLERS, ...on };
    const channels = source.channels ?? 1;
    if (transcript.channels < channels) transcript.replace(transcript.all, channels);
    this.#reached = Array(channels).fill(0);
    this.#resumed = [...this.#reached];
  }

  /** Resolves when the recording is complete or was stopped, rejects with `SessionError`. */
  async run() {
    this.#on.state("connecting");
    try {
      while (await this.#runStream()) {
        if (!this.#stopping) this.#on.state("reconnecting");
        await this.#wait(BACKOFF_SECONDS[this.#attempts++]);
        if (this.#abandoned) return;
      }
    } finally {
      clearInterval(this.#paused);
      this.#processDelayed();
    }
  }

  /** Pause or continue a live source. The stream stays open: the server ends it after ten minutes without audio. */
  async setPaused(paused) {
    clearInterval(this.#paused);
    this.#paused = paused ? setInterval(() => this.#stream?.keepAlive(), KEEP_ALIVE_SECONDS * 1000) : null;
    await this.#source.setPaused(paused);
    if (paused) this.#stream?.flush();
  }

  get isPaused() {
    return this.#paused !== null;
  }

  /** Send the remaining audio, then wait for the last words; a second call does not wait. */
  async stop() {
    const reachable = this.#stream?.isOpen || this.#token !== "";
    if (this.#stopping || !reachable || !this.#source.live) return this.abandon();
    this.#stopping = true;
    this.#on.state("finishing");
    await this.#source.stop();
    this.#ended = true;
    this.#stream.finish();
  }

  abandon() {
    this.#abandoned = true;
    this.#stream?.close();
    this.#wake();
  }

  /** Return the seconds of audio queued in the browser; 0 for files, whose bytes do not indicate a time. */
  get unsentSeconds() {
    return (this.#stream?.waiting ?? 0) / (this.#source.bytesPerSecond ?? Infinity);
  }

  /** Return whether another connection is needed. */
  async #runStream() {
    const resuming = this.#token !== "";
    if (!resuming) {
      this.#completed = false;
      this.#resumed = [...this.#reached];
      this.#received = 0;
    }
    const resume = resuming ? { resume: this.#token, received: this.#received } : { resume: "yes" };
    try {
      const parameters = { ...this.#source.parameters, ...resume };
      this.#stream = await this.#server.open(parameters, (message) => this.#receive(message));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return this.#mayRetry(await this.#server.whyRefused());
    }
    if (this.#abandoned) this.#stream.close();
    if (!resuming) {
      this.#delayed = null;
      this.#offset = this.#source.start(this.#stream, Math.min(...this.#resumed));
      this.#on.state("running");
    }
    return this.#needsAnother(await this.#stream.closed);
  }

  #needsAnother(code) {
    this.#clearPartials();
    if (this.#abandoned || (this.#completed && (code !== 1012 || this.#stopping))) return false;
    if (code !== LOST) this.#token = ""; // the server has ended the stream
    if (this.#failure?.code === "cannot_resume") this.#failure = null;
    else if (!RETRIED_CODES.has(code)) {
      throw this.#failure ?? new SessionError("closed", `The server closed the stream (code ${code}).`);
    }
    return this.#mayRetry({ code: "lost", message: "The connection to the server was lost." });
  }

  #mayRetry({ code, message, ...details }) {
    const began = Math.max(...this.#reached) > 0 || code === "lost" || this.#attempts > 0;
    if (this.#abandoned || (this.#stopping && this.#token === "")) return false;
    if (began && code !== "unauthorized" && this.#attempts < BACKOFF_SECONDS.length) return true;
    throw new SessionError(code, message, details);
  }

  #wait(seconds) {
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, seconds * 1000);
    });
  }

  #receive(message) {
    if (!NOT_COUNTED.has(message.type)) this.#received++;
    if (this.#delayed && !NEVER_DELAYED.has(message.type)) {
      this.#completed ||= message.type === "complete";
      this.#delayed.push(message);
      return;
    }
    switch (message.type) {
      case "ready":
        this.#token = message.resume ?? "";
        return;
      case "resumed":
        return this.#resume(message.audio_bytes);
      case "restarting":
        this.#clearPartials();
        this.#delayed = [];
        return;
      case "partial":
        return this.#transcript.partial(message.text, message.channel, message.glued);
      case "word":
        return this.#word(message);
      case "segment":
        return this.#transcript.segment(this.#toTranscriptTime(message));
      case "turn":
        return this.#on.turn(message.state);
      case "lag":
        this.#attempts = 0;
        this.#reach(this.#offset + message.processed - MAX_RELEASE_SECONDS, message.channel);
        return this.#on.lag({ ...message, processed: message.processed + this.#offset });
      case "warning":
        return this.#on.warning(message.message, message.code);
      case "error":
        this.#failure = new SessionError(message.code, message.message);
        return;
      case "complete":
        this.#completed = true;
        this.#reached.forEach((_, channel) => this.#reach(this.#offset + message.audio_seconds, channel));
        this.#on.complete(this.#offset + message.audio_seconds);
    }
  }

  #reach(seconds, channel = 0) {
    this.#reached[channel] = Math.max(this.#reached[channel], seconds);
  }

  #clearPartials() {
    this.#reached.forEach((_, channel) => this.#transcript.partial("", channel));
  }

  /** Show the words after `restarting`: there is no next stream. */
  #processDelayed() {
    const delayed = this.#delayed ?? [];
    this.#delayed = null;
    for (const message of delayed) this.#receive(message);
  }

  /** Continue a stream that the server has kept, after the audio it has received. */
  #resume(bytes) {
    this.#source.resume(this.#stream, bytes);
    this.#on.state("running");
    if (this.#stopping) this.#on.state("finishing");
    if (this.#ended) this.#stream.finish();
  }

  #word(message) {
    const start = message.start + this.#offset;
    if (start < this.#resumed[message.channel ?? 0] - SAME_WORD_SECONDS) return;
    this.#reach(message.end + this.#offset, message.channel);
    const word = this.#toTranscriptTime(message);
    this.#transcript.word(word);
    this.#on.word(word);
  }

  #toTranscriptTime({ type, ...message }) {
    const by = this.#start + this.#offset;
    return { ...message, start: message.start + by, end: message.end + by };
  }
}
