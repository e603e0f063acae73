// One WebSocket of the native protocol: its address, audio, messages and end.

const EVENTS = "ready,partial,word,segment,turn,lag";
const HIGH_WATER_BYTES = 256 * 1024;
const POLL_MILLISECONDS = 25;

/** The server refused the connection; service.js requests the reason, which browsers hide. */
export class Refused extends Error {}

function address(parameters, key) {
  const url = new URL("v1/stream", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = new URLSearchParams({ ...parameters, events: EVENTS, ...(key ? { token: key } : {}) });
  return url;
}

export class Stream {
  #socket;

  /** Resolves once the socket is open, rejects with `Refused`. `onMessage` gets every message, parsed. */
  static open(parameters, key, onMessage) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(address(parameters, key));
      const stream = new Stream(socket, onMessage);
      socket.addEventListener("open", () => resolve(stream));
      socket.addEventListener("close", () => reject(new Refused("the server did not open a stream")));
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
    return this.#socket.readyState === WebSocket.OPEN;
  }

  /** Return the bytes queued in the browser. */
  get waiting() {
    return this.#socket.bufferedAmount;
  }

  send(bytes) {
    if (this.isOpen) this.#socket.send(bytes);
  }

  /** End the audio: the server releases all words, sends `complete` and closes. */
  finish() {
    if (this.isOpen) this.#socket.send(JSON.stringify({ type: "finish" }));
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
}
