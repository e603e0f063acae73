// The sample that comes with the page: played aloud and transcribed as if it were spoken.

import { Capture } from "./client/index.js";

export class Sample extends Capture {
  /** Called at the end of the sample. */
  onEnded = () => {};
  #node;

  static async open(url) {
    const context = await Capture.openContext();
    const response = await fetch(url);
    const audio = await context.decodeAudioData(await response.arrayBuffer());
    return new Sample(context, audio);
  }

  constructor(context, audio) {
    const node = new AudioBufferSourceNode(context, { buffer: audio });
    super(context, node);
    this.#node = node;
    node.connect(context.destination);
    node.addEventListener("ended", () => this.onEnded());
  }

  play() {
    this.#node.start();
  }
}
