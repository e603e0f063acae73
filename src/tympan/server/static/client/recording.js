// A file as a source of audio: sends its bytes unchanged, as fast as the server accepts them.

const CHUNK_BYTES = 64 * 1024;

export class Recording {
  live = false;
  /** Called with the share sent so far, 0 to 1. */
  onProgress = () => {};
  stopped = false;
  #file;

  /** `file` is a Blob in any container that the server accepts; with 2 channels, each is transcribed separately. */
  constructor(file, { channels = 1 } = {}) {
    this.#file = file;
    this.channels = channels;
    this.parameters = { encoding: "auto", ...(channels > 1 ? { channels } : {}) };
  }

  get name() {
    return this.#file.name ?? "";
  }

  /** Send the whole file; a container cannot be continued in its middle, so a restart begins at time 0. */
  start(stream) {
    this.#pump(stream, 0);
    return 0;
  }

  /** Continue on another connection after the bytes that the server has received. */
  resume(stream, bytes) {
    this.#pump(stream, bytes);
  }

  async stop() {
    this.stopped = true;
  }

  async #pump(stream, from) {
    for (let at = from; at < this.#file.size && stream.isOpen && !this.stopped; at += CHUNK_BYTES) {
      stream.send(await this.#file.slice(at, at + CHUNK_BYTES).arrayBuffer());
      this.onProgress(Math.min(1, (at + CHUNK_BYTES) / this.#file.size));
      await stream.drained();
    }
    stream.finish();
  }
}
