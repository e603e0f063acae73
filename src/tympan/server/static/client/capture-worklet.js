// Runs in the browser's audio thread: collects samples in 80 ms chunks of 16-bit integers.

const CHUNK_SECONDS = 0.08;

class CaptureProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this.chunk = new Int16Array(Math.round(sampleRate * CHUNK_SECONDS));
    this.filled = 0;
    this.live = true;
    this.port.onmessage = ({ data }) => this.command(data);
  }

  process([input]) {
    const samples = input[0] ?? []; // no channel at all while the microphone is muted by the system
    for (const sample of samples) {
      const clipped = Math.max(-1, Math.min(1, sample));
      this.chunk[this.filled++] = Math.round(clipped * 32767);
      if (this.filled === this.chunk.length) this.post();
    }
    return this.live;
  }

  post() {
    const bytes = this.chunk.slice(0, this.filled).buffer;
    this.filled = 0;
    this.port.postMessage(bytes, [bytes]);
  }

  /** Send the incomplete last chunk, then null; `command` is "pause" or "end". */
  command(command) {
    this.live = command !== "end";
    if (this.filled > 0) this.post();
    this.port.postMessage(null);
  }
}

registerProcessor("capture", CaptureProcessor);
