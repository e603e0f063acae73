// The display around the transcript: button state, level, lag, figures, the server's line, and messages.

import { clock } from "./clock.js";
import { peakOf } from "./files.js";

const DECIBEL_RANGE = 60;
const CLIPPING_LEVEL = 0.99;
const LABELS = {
  idle: "Start microphone",
  connecting: "Connecting…",
  running: "Stop",
  reconnecting: "Stop",
  finishing: "Finishing…",
};

/** Return the element with this id. */
export const at = (id) => document.getElementById(id);

export function showState(state) {
  document.body.dataset.state = state;
  at("record").dataset.state = state;
  at("record-text").textContent = LABELS[state];
  for (const id of ["file", "clear", "earlier"]) at(id).disabled = state !== "idle";
  if (state === "idle") showLag(0);
}

/** Show the peak of these samples (Int16Array, may be empty) in decibels. */
export function showLevel(samples) {
  const peak = peakOf(samples) / 32768;
  const level = Math.max(0, Math.min(1, 1 + (20 * Math.log10(peak + 1e-6)) / DECIBEL_RANGE));
  at("level-bar").style.transform = `scaleX(${level.toFixed(3)})`;
  at("level").dataset.clipping = String(peak > CLIPPING_LEVEL);
  at("level").setAttribute("aria-valuenow", String(Math.round(level * 100)));
}

export function showLag(behind) {
  at("lag").textContent = `${behind.toFixed(1)} s`;
}

/** Show the audio transcribed or recorded so far; `whole` is the length of a file if it is known. */
export function showElapsed(seconds, whole = Infinity) {
  at("elapsed").textContent = whole < Infinity ? `${clock(seconds)} of ${clock(whole)}` : clock(seconds);
}

export function showWordCount(count) {
  at("words").textContent = String(count);
}

/** Show the model; `server` is the response of `/health`, or null if the server is unreachable. */
export function showServer(server) {
  const line = at("model");
  line.dataset.state = server ? "ok" : "gone";
  at("notice").textContent = server?.notice ?? "";
  at("notice").hidden = !server?.notice;
  if (server === null) {
    at("model-text").textContent = "The server does not respond";
    return;
  }
  at("model-text").textContent = [...new Set([server.model, server.engine, server.device])].join(" · ");
  line.title = `Tympan ${server.version}; ${server.active} of ${server.capacity} streams in use`;
}

/** Show a message, which replaces the last one, with at most one action; `kind` identifies it for `hideMessage`. */
export function showMessage(sentence, { kind = "", label = "", action = null } = {}) {
  at("message").dataset.kind = kind;
  at("message-text").textContent = asSentence(sentence);
  at("message-action").textContent = label;
  at("message-action").hidden = action === null;
  at("message-action").onclick = () => {
    hideMessage();
    action();
  };
  at("message").hidden = false;
}

/** Return a server's message as a sentence: it begins in lower case and has no full stop. */
function asSentence(text) {
  const capital = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(capital) ? capital : `${capital}.`;
}

/** Hide the message; with a `kind`, only one of that kind. */
export function hideMessage(kind = at("message").dataset.kind) {
  if (at("message").dataset.kind === kind) at("message").hidden = true;
}

/** Ask for an API key; `use` receives the input. */
export function askForKey(use) {
  at("key-form").hidden = false;
  at("key-form").onsubmit = (event) => {
    event.preventDefault();
    use(at("key").value.trim());
  };
  at("key").focus();
}

export function hideKeyForm() {
  at("key-form").hidden = true;
}
