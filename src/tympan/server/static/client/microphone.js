// The microphone as a source of audio.

import { Capture } from "./capture.js";

// Recognizers are trained on unprocessed rooms. Echo cancellation and noise suppression, which are made for calls,
// remove the beginnings of words, and no sound is played meanwhile. Gain control helps quiet microphones.
const CONSTRAINTS = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true };

const MESSAGES = {
  insecure:
    "Browsers allow the microphone only on https:// pages and on localhost. Open this page there; files work here.",
  denied: "Access to the microphone was denied. Allow it in the browser's address bar, then start again.",
  missing: "No microphone was found. Connect one, then start again; files work without one.",
  busy: "The microphone is in use by another application. Close that one, then start again.",
};
const CODES = { NotAllowedError: "denied", NotFoundError: "missing", NotReadableError: "busy" };

/** The microphone is not available; the message says why and what to do. */
export class MicrophoneError extends Error {
  /** `code` is "insecure", "denied", "missing", "busy" or "failed". */
  constructor(code, detail = "") {
    super(MESSAGES[code] ?? `The microphone could not be opened (${detail}).`);
    this.code = code;
    this.detail = detail;
  }
}

export class Microphone extends Capture {
  /** Called when the device is disconnected. */
  onLost = () => {};
  #track;

  /** Ask for the user's permission and open the device; rejects with `MicrophoneError`. */
  static async open() {
    const media = await openDevice();
    const context = await Capture.openContext();
    return new Microphone(context, media);
  }

  constructor(context, media) {
    super(context, context.createMediaStreamSource(media));
    this.#track = media.getAudioTracks()[0];
    this.#track.addEventListener("ended", () => this.onLost());
  }

  async stop() {
    await super.stop();
    this.#track.stop();
  }
}

async function openDevice() {
  if (!window.isSecureContext || !navigator.mediaDevices) throw new MicrophoneError("insecure");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: CONSTRAINTS });
  } catch (error) {
    throw new MicrophoneError(CODES[error.name] ?? "failed", error.message || error.name);
  }
}
