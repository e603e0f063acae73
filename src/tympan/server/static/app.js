// The page: connects the buttons, the current recording and the display.

import { copy, download, formatted } from "./export.js";
import { mayBeAudio, outline, peakOf, Recording } from "./files.js";
import { Microphone, MicrophoneError } from "./microphone.js";
import * as panel from "./panel.js";
import { at } from "./panel.js";
import { health, keyAccepted } from "./service.js";
import { Session, SessionError } from "./session.js";
import { Sheet } from "./sheet.js";
import { Transcript } from "./transcript.js";
import { Waveform } from "./waveform.js";

const KEY_NAME = "tympan-key";
const WORTH_ANOTHER_TRY = new Set(["full", "restarting", "unreachable", "lost", "unknown", "engine", "internal"]);
const COPIED_MILLISECONDS = 1500;

const transcript = new Transcript();
const sheet = new Sheet(at("transcript"), at("spoken"));
const waveform = new Waveform(at("waveform"));

let server = null; // the last answer of /health
let key = new URLSearchParams(location.search).get("token") ?? sessionStorage.getItem(KEY_NAME) ?? "";
let busy = false; // a recording runs, or the microphone is being opened
let session = null;
let seconds = 0; // of audio transcribed so far; the microphone continues from here
let file = ""; // name of the transcribed file; empty for the microphone
let earlier = null; // the previous transcript: {segments, seconds, file}

// --- Recording -------------------------------------------------------------------------------------------------------

async function toggle() {
  if (session) return session.stop();
  if (busy) return; // the browser is asking for permission to use the microphone
  begin("connecting");
  try {
    await listen(await Microphone.open());
  } catch (error) {
    if (!(error instanceof MicrophoneError)) throw error;
    panel.showMessage(error.message);
  } finally {
    end();
  }
}

async function listen(microphone) {
  const start = seconds;
  waveform.reset();
  microphone.onChunk = (samples) => {
    seconds = start + microphone.seconds;
    panel.showElapsed(seconds);
    panel.showLevel(samples);
    const middle = samples.length >> 1;
    waveform.push(peakOf(samples, 0, middle) / 32768);
    waveform.push(peakOf(samples, middle) / 32768);
  };
  microphone.onLost = () => {
    panel.showMessage("The microphone was disconnected. The transcript so far is kept.");
    session?.stop();
  };
  // Phones switch off the microphone together with the screen.
  const awake = await navigator.wakeLock?.request("screen").catch(() => null);
  await run(microphone, start, toggle);
  panel.showLevel([]);
  await awake?.release();
}

async function transcribe(recording) {
  if (busy) return panel.showMessage("Stop the current recording, then open the file.");
  if (!mayBeAudio(recording)) return panel.showMessage(notReadable(recording.name));
  begin("connecting");
  startNew(recording.name);
  try {
    const complete = await read(recording);
    if (!complete && transcript.isEmpty) swap();
  } finally {
    end();
  }
}

async function read(recording) {
  const source = new Recording(recording);
  waveform.showFile();
  let length = Infinity;
  outline(recording, waveform.bars).then((picture) => {
    length = picture?.seconds ?? Infinity;
    if (picture && !source.stopped) waveform.showFile(picture.levels);
  });
  source.onProgress = (fraction) => length === Infinity && waveform.progress(fraction);
  const complete = await run(source, 0, () => transcribe(recording), ({ processed }) => {
    seconds = processed;
    panel.showElapsed(seconds, length);
    if (length < Infinity) waveform.progress(processed / length);
  });
  if (complete) waveform.progress(1);
  return complete;
}

/** Run one recording to its end and return whether it succeeded; `again` is the action of "Try again". */
async function run(source, start, again, onLag = () => {}) {
  const on = {
    state: (state) => showProgress(state, source.live),
    lag: (lag) => {
      panel.showLag(lag.behind + session.unsentSeconds);
      onLag(lag);
    },
    turn: (state) => (at("transcript").dataset.turn = state),
    warning: (sentence) => panel.showMessage(sentence),
    complete: (audioSeconds) => (seconds = start + audioSeconds),
  };
  document.body.dataset.source = source.live ? "microphone" : "file";
  session = new Session(source, transcript, { key, start, on });
  try {
    await session.run();
    return true;
  } catch (error) {
    if (!(error instanceof SessionError)) throw error;
    if (error.code === "bad_audio") panel.showMessage(notReadable(source.name));
    else showRefusal(error, again);
    return false;
  } finally {
    session = null;
    await source.stop();
    transcript.close();
  }
}

function begin(state) {
  busy = true;
  panel.hideMessage();
  panel.hideKeyForm();
  panel.showState(state);
}

function end() {
  busy = false;
  panel.showElapsed(seconds);
  panel.showState("idle");
  showServer();
}

function showProgress(state, live) {
  panel.showState(state);
  if (state === "running") panel.hideMessage("reconnecting");
  if (state !== "reconnecting") return;
  const meanwhile = live
    ? "Keep speaking: the audio is sent when the server is back."
    : "The file continues when the server is back.";
  panel.showMessage(`The connection was lost. Reconnecting… ${meanwhile}`, { kind: "reconnecting" });
}

function notReadable(name) {
  return `“${name}” cannot be read as a recording. Try wav, mp3, flac, m4a, ogg or webm.`;
}

function showRefusal({ code, message }, again) {
  if (code === "unauthorized") return panel.askForKey((typed) => tryKey(typed, again));
  panel.showMessage(message, WORTH_ANOTHER_TRY.has(code) ? { label: "Try again", action: again } : {});
}

async function tryKey(typed, again) {
  if (!(await keyAccepted(typed))) return panel.showMessage("The server rejected this key.");
  key = typed;
  sessionStorage.setItem(KEY_NAME, key);
  again();
}

async function showServer() {
  server = await health();
  panel.showServer(server);
}

// --- Keeping and clearing the transcript -----------------------------------------------------------------------------

function showTranscript() {
  const blank = transcript.isEmpty && transcript.pending === "";
  at("welcome").hidden = !blank;
  at("sheet").hidden = blank;
  at("earlier").hidden = earlier === null;
  panel.showWordCount(transcript.wordCount);
  sheet.show(transcript);
}

function keep(format) {
  const about = { file: file || "microphone", model: server?.model, duration: seconds };
  const name = file.replace(/\.[^.]*$/, "") || "transcript";
  download(name, format, formatted(format, transcript.all, about));
}

async function copyAll() {
  await copy(formatted("txt", transcript.all));
  at("copy").textContent = "Copied";
  setTimeout(() => (at("copy").textContent = "Copy"), COPIED_MILLISECONDS);
}

/** Clear the transcript, and keep it so that it can be restored. */
function startNew(newFile = "") {
  if (!transcript.isEmpty) earlier = { segments: transcript.all, seconds, file };
  show({ segments: [], seconds: 0, file: newFile });
}

/** Swap the transcript with the one that was cleared. */
function swap() {
  const shown = { segments: transcript.all, seconds, file };
  const back = earlier;
  earlier = transcript.isEmpty ? null : shown;
  if (back) show(back);
}

function show(kept) {
  ({ seconds, file } = kept);
  waveform.reset();
  panel.showElapsed(seconds);
  transcript.replace(kept.segments);
}

function clear() {
  startNew();
  panel.showMessage("Cleared.", { label: "Bring it back", action: () => !busy && swap() });
}

// --- Events ----------------------------------------------------------------------------------------------------------

function acceptDrops() {
  let depth = 0; // the browser sends these events for every nested element
  const move = (by) => {
    depth = Math.max(0, depth + by);
    document.body.classList.toggle("dropping", depth > 0);
  };
  addEventListener("dragenter", () => move(1));
  addEventListener("dragleave", () => move(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    move(-depth);
    if (event.dataTransfer.files.length > 0) transcribe(event.dataTransfer.files[0]);
  });
}

at("record").addEventListener("click", toggle);
at("file").addEventListener("change", ({ target }) => {
  const [recording] = target.files;
  target.value = ""; // so that the same file can be chosen again
  if (recording) transcribe(recording);
});
at("copy").addEventListener("click", copyAll);
at("earlier").addEventListener("click", swap);
at("clear").addEventListener("click", clear);
at("message-dismiss").addEventListener("click", () => panel.hideMessage());
for (const button of document.querySelectorAll("[data-format]")) {
  button.addEventListener("click", () => keep(button.dataset.format));
}
addEventListener("beforeunload", (event) => busy && event.preventDefault());
acceptDrops();
transcript.onChange = showTranscript;
panel.showState("idle");
showServer();
