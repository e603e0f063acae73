// The output of a Web Audio node as a source of audio: the microphone's, or a recording's that is being played.

import { LiveSource } from "./source.js";

const HIGHEST_RATE = 48000;

export class Capture extends LiveSource {
  #context;
  #node;
  #answered = () => {};

  /** Return a context at the device's own rate, which the server resamples better than a browser must. */
  static async openContext() {
    const context = new AudioContext();
    if (context.sampleRate > HIGHEST_RATE) {
      await context.close();
      return Capture.#prepared(new AudioContext({ sampleRate: HIGHEST_RATE }));
    }
    return Capture.#prepared(context);
  }

  static async #prepared(context) {
    await context.audioWorklet.addModule(new URL("capture-worklet.js", import.meta.url));
    await context.resume();
    return context;
  }

  /** `context` is one of `openContext`, `input` one of its nodes. */
  constructor(context, input) {
    super(context.sampleRate);
    this.#context = context;
    this.#node = new AudioWorkletNode(context, "capture", { channelCount: 1, channelCountMode: "explicit" });
    this.#node.port.onmessage = ({ data }) => (data === null ? this.#answered() : this.push(data));
    input.connect(this.#node);
    // The worklet outputs silence; some browsers do not run a graph without a destination.
    this.#node.connect(context.destination);
  }

  async setPaused(paused) {
    if (!paused) return this.#context.resume();
    await this.#request("pause");
    if (this.#context.state === "running") await this.#context.suspend();
  }

  async stop() {
    await this.#request("end");
    if (this.#context.state !== "closed") await this.#context.close();
  }

  /** Wait until the worklet has sent its incomplete chunk. */
  async #request(command) {
    if (this.#context.state !== "running") return;
    const answer = new Promise((resolve) => (this.#answered = resolve));
    this.#node.port.postMessage(command);
    await answer;
  }
}
