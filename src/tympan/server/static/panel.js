// The display around the transcript: button state, level, lag, figures, the server's line, and messages.

import { peakOf } from "./files.js";
import { seconds, t } from "./texts/index.js";
import { clock } from "./transcript/clock.js";

const DECIBEL_RANGE = 60;
const CLIPPING_LEVEL = 0.99;
const SHOWN_LAG_SECONDS = 2;

/** Return the element with this id. */
export const at = (id) => document.getElementById(id);

export function showState(state) {
  document.body.dataset.state = state;
  at("record").dataset.state = state;
  at("record-text").textContent = t(`state.${state}`);
  for (const id of ["file", "clear", "earlier", "sample", "sample-call"]) at(id).disabled = state !== "idle";
  if (state !== "running") showPause(false, false);
  if (state === "idle") showLag(0);
}

/** Show whether the recording can be paused, and whether it is. */
export function showPause(possible, paused) {
  const focused = document.activeElement === at("pause");
  at("pause").hidden = !possible;
  at("pause").textContent = t(paused ? "continue" : "pause");
  document.body.dataset.paused = String(paused);
  if (focused && !possible) at("record").focus();
}

/** Show the peak of these samples (Int16Array, may be empty) in decibels. */
export function showLevel(samples) {
  const peak = peakOf(samples) / 32768;
  const level = Math.max(0, Math.min(1, 1 + (20 * Math.log10(peak + 1e-6)) / DECIBEL_RANGE));
  at("level-bar").style.transform = `scaleX(${level.toFixed(3)})`;
  at("level").dataset.clipping = String(peak > CLIPPING_LEVEL);
  at("level").setAttribute("aria-valuenow", String(Math.round(level * 100)));
}

/** Show how far the server is behind the audio, if it is. */
export function showLag(behind) {
  at("lag").textContent = seconds(behind);
  at("behind").hidden = behind < SHOWN_LAG_SECONDS;
}

/** Show the time from the end of a word to its display, or nothing for null. */
export function showLatency(latency) {
  at("latency-figure").hidden = latency === null;
  at("latency").textContent = latency === null ? "" : seconds(Math.max(0, latency));
}

/** Show the audio transcribed or recorded so far; `whole` is the length of a file if it is known. */
export function showElapsed(part, whole = Infinity) {
  at("elapsed").textContent = whole < Infinity ? t("of", { part: clock(part), whole: clock(whole) }) : clock(part);
}

export function showWordCount(count) {
  at("words").textContent = String(count);
}

/** Show the model; `server` is the response of `/health`, or null if the server is unreachable. */
export function showServer(server) {
  const line = at("model");
  const starting = server?.status === "starting";
  line.dataset.state = starting ? "starting" : server ? "ok" : "gone";
  line.title = "";
  if (server === null) {
    at("model-text").textContent = t("server.gone");
    return;
  }
  if (starting) {
    at("model-text").textContent = t("server.starting");
    line.title = server.reason;
    return;
  }
  at("notice").textContent = server.notice;
  at("notice").hidden = !server.notice;
  at("model-text").textContent = [...new Set([server.model, server.engine, server.device])].join(" · ");
  line.title = t("server.title", server);
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
  if (at("message").dataset.kind !== kind || at("message").hidden) return;
  const focused = at("message").contains(document.activeElement);
  at("message").hidden = true;
  if (focused) at("record").focus();
}

/** Show the form for an API key; `use` receives the input. */
export function askForKey(use, { focus = true } = {}) {
  at("key-form").hidden = false;
  at("key-form").onsubmit = (event) => {
    event.preventDefault();
    use(at("key").value.trim());
  };
  if (focus) at("key").focus();
}

export function hideKeyForm() {
  at("key-form").hidden = true;
}
