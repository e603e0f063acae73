// One WebSocket of the native protocol: audio, messages and end.

const HIGH_WATER_BYTES = 256 * 1024;
const POLL_MILLISECONDS = 25;
const OPEN = 1; // WebSocket.OPEN, which Node before 22 does not define

/** The server refused the connection; `Server.whyRefused` requests the reason, which browsers hide. */
export class Refused extends Error {}

export class Stream {
  #socket;

  /** Resolves once the socket is open, rejects with `Refused`. `onMessage` gets every message, parsed. */
  static open(socket, onMessage) {
    return new Promise((resolve, reject) => {
      const stream = new Stream(socket, onMessage);
      socket.addEventListener("open", () => resolve(stream));
      // Node's class sends no `close` for a socket that was never open.
      for (const end of ["close", "error"]) {
        socket.addEventListener(end, () => reject(new Refused("the server did not open a stream")));
      }
    });
  }

  constructor(socket, onMessage) {
    this.#socket = socket;
    socket.addEventListener("message", (event) => onMessage(JSON.parse(event.data)));
    /** Resolves with the close code. */
    this.closed = new Promise((resolve) => {
      socket.addEventListener("close", (event) => resolve(event.code));
    });
  }

  get isOpen() {
    return this.#socket.readyState === OPEN;
  }

  /** Return the bytes queued in the browser. */
  get waiting() {
    return this.#socket.bufferedAmount;
  }

  send(bytes) {
    if (this.isOpen) this.#socket.send(bytes);
  }

  /** Release the words of all audio so far; the stream continues. */
  flush() {
    this.#command("flush");
  }

  /** Reset the server's idle timer. */
  keepAlive() {
    this.#command("keepalive");
  }

  /** End the audio: the server releases all words, sends `complete` and closes. */
  finish() {
    this.#command("finish");
  }

  close() {
    this.#socket.close(1000);
  }

  /** Resolves when little is queued, so that a file is read only as fast as the server accepts it. */
  async drained() {
    // Browsers have no event for this.
    while (this.isOpen && this.waiting > HIGH_WATER_BYTES) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
    }
  }

  #command(type) {
    if (this.isOpen) this.#socket.send(JSON.stringify({ type }));
  }
}
