// A server: its address and key, its model, whether it is ready, why it refused a stream.

import { Stream } from "./stream.js";

const EVENTS = "ready,partial,word,segment,turn,lag";

export class Server {
  #base;
  #WebSocket;

  /**
   * `url` is the server's address with the prefix of a proxy, if there is one; in a page of the server, the page's own.
   * `WebSocket` replaces the global class where there is none (Node before 22).
   */
  constructor(url = globalThis.location?.href, { key = "", WebSocket = globalThis.WebSocket } = {}) {
    this.#base = new URL(url);
    this.#base.search = this.#base.hash = "";
    if (!this.#base.pathname.endsWith("/")) this.#base.pathname += "/";
    this.#base.protocol = this.#base.protocol.replace("ws", "http");
    this.#WebSocket = WebSocket;
    this.key = key;
  }

  /** Return the address without a slash at its end. */
  get url() {
    return this.#base.href.replace(/\/$/, "");
  }

  /** Return the response of `/health`, or null if the server is unreachable; `status` is "starting" or "ok". */
  async health() {
    const { status, body } = await this.#ask("health");
    return status === 200 ? body : null;
  }

  /** Return whether the server accepts this key, or needs none. */
  async keyAccepted(key = this.key) {
    const { status } = await this.#ask("v1/models", key);
    return status !== 401 && status !== 403;
  }

  /** Return the paths of the pages of documentation that the server has, relative to `guide/`. */
  async documentation() {
    const { body } = await this.#ask("guide");
    return body.pages ?? [];
  }

  /** Return why a stream was refused, `{code, message}`; browsers hide the response to a failed WebSocket. */
  async whyRefused() {
    const state = await this.health();
    if (state === null) return refusal("unreachable", "The server does not respond. Check that it is running.");
    if (!(await this.keyAccepted())) return refusal("unauthorized", "This server requires an API key.");
    const ready = await this.#ask("ready");
    if (ready.body.reason === "full" || state.active >= state.capacity) {
      return { ...refusal("full", fullMessage(state.capacity)), capacity: state.capacity };
    }
    if (ready.status !== 200) {
      const reason = ready.body.reason;
      return { ...refusal("restarting", `The server is not ready (${reason}). Try again in a moment.`), reason };
    }
    return refusal("unknown", "The server refused the stream. Try again in a moment.");
  }

  /** Open a stream of the native protocol; resolves once the socket is open, rejects with `Refused`. */
  open(parameters, onMessage) {
    const url = new URL("v1/stream", this.#base);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = new URLSearchParams({ ...parameters, events: EVENTS, ...(this.key ? { token: this.key } : {}) });
    return Stream.open(new this.#WebSocket(url.href), onMessage);
  }

  async #ask(path, key) {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    try {
      const response = await fetch(new URL(path, this.#base), { headers, cache: "no-store" });
      const body = await response.json().catch(() => ({}));
      return { status: response.status, body };
    } catch {
      return { status: 0, body: {} };
    }
  }
}

function refusal(code, message) {
  return { code, message };
}

function fullMessage(capacity) {
  const all = capacity === 1 ? "its only stream is" : `all ${capacity} streams are`;
  return `The server is full: ${all} in use. Try again later.`;
}
