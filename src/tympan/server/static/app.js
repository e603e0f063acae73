// The page: connects the buttons, the recorder, the transcript and the display.

import { Server } from "./client/index.js";
import { copyFrom, prepareCode } from "./code.js";
import { ACCEPT, FORMATS } from "./files.js";
import * as panel from "./panel.js";
import { at } from "./panel.js";
import { Recorder } from "./recorder.js";
import { t, translatePage } from "./texts/index.js";
import { download, formatted } from "./transcript/export.js";
import { Notebook } from "./transcript/notebook.js";
import { Player } from "./transcript/player.js";
import { Sheet } from "./transcript/sheet.js";
import { Waveform } from "./waveform.js";

const KEY_NAME = "tympan-key";
const SAMPLE = "static/sample.mp3";
const CALL = "static/sample-call.mp3";
const LOOK_MILLISECONDS = 5000;

const server = new Server(location.href, {
  key: new URLSearchParams(location.search).get("token") ?? sessionStorage.getItem(KEY_NAME) ?? "",
});
const player = new Player();
const notebook = new Notebook(player);
const { transcript } = notebook;
const sheet = new Sheet(at("transcript"), at("spoken"));
const waveform = new Waveform(at("waveform"));
const recorder = new Recorder(server, notebook, waveform);

let health = null; // the last answer of /health
let keyed = false; // whether the server requires a key

// --- The server and its key ------------------------------------------------------------------------------------------

async function showServer() {
  const known = await server.health();
  const isNew = known !== null && known.status !== "starting" && health?.status !== "ok";
  health = known;
  panel.showServer(known);
  if (isNew) await checkKey();
}

async function checkKey() {
  const accepted = await server.keyAccepted();
  keyed = server.key !== "" || !accepted;
  if (!accepted && !recorder.isBusy) panel.askForKey((typed) => tryKey(typed), { focus: false });
}

/** Use a key that the user has typed, and then continue with what needed it. */
async function tryKey(typed, again = () => {}) {
  if (!(await server.keyAccepted(typed))) return panel.showMessage(t("key.rejected"));
  server.key = typed;
  sessionStorage.setItem(KEY_NAME, typed);
  panel.hideKeyForm();
  panel.hideMessage();
  again();
}

// --- The transcript --------------------------------------------------------------------------------------------------

function showTranscript() {
  const blank = transcript.isEmpty && transcript.pending.every((text) => text === "");
  at("welcome").hidden = !blank;
  at("sheet").hidden = blank;
  at("earlier").hidden = !notebook.hasEarlier;
  at("heads").hidden = transcript.channels < 2;
  panel.showWordCount(transcript.wordCount);
  sheet.show(transcript);
}

function showReplaced() {
  waveform.reset();
  panel.showElapsed(notebook.seconds);
  panel.showLatency(null);
  showPlayable();
}

/** Words can be played unless the loudspeaker would be recorded. */
function showPlayable() {
  const playable = !recorder.isBusy && player.tracks.length > 0;
  sheet.setPlayable(playable);
  at("play").hidden = !playable;
}

function showPlaying(seconds) {
  sheet.mark(seconds);
  at("play").textContent = t(seconds === null ? "play" : "play.stop");
}

function togglePlaying() {
  if (player.isPlaying) player.stop();
  else player.play(player.tracks[0]?.start ?? 0);
}

function keep(format) {
  const about = { file: notebook.file || "microphone", model: health?.model, duration: notebook.seconds };
  const name = notebook.file.replace(/\.[^.]*$/, "") || "transcript";
  download(name, format, formatted(format, transcript.all, about));
}

function clear() {
  notebook.startNew();
  notebook.save();
  const action = () => !recorder.isBusy && notebook.swap();
  panel.showMessage(t("cleared"), { label: t("cleared.undo"), action });
}

async function openCall() {
  const response = await fetch(CALL);
  const blob = await response.blob();
  await recorder.transcribe(new File([blob], CALL.split("/").at(-1), { type: "audio/mpeg" }), 2);
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
    if (event.dataTransfer.files.length > 0) recorder.transcribe(event.dataTransfer.files[0]);
  });
}

function connectButtons() {
  const actions = {
    record: () => recorder.toggle(),
    pause: () => recorder.togglePause(),
    sample: () => recorder.playSample(SAMPLE),
    "sample-call": openCall,
    copy: ({ currentTarget }) => copyFrom(currentTarget, formatted("txt", transcript.all)),
    play: togglePlaying,
    earlier: () => notebook.swap(),
    clear,
    "message-dismiss": () => panel.hideMessage(),
  };
  for (const [id, action] of Object.entries(actions)) at(id).addEventListener("click", action);
  for (const button of document.querySelectorAll("[data-format]")) {
    button.addEventListener("click", () => keep(button.dataset.format));
  }
  at("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = ""; // so that the same file can be chosen again
    if (file) recorder.transcribe(file);
  });
}

recorder.onBusy = (busy) => {
  if (busy) player.stop();
  showPlayable();
  if (!busy) showServer();
};
recorder.onConnected = (connected) => (connected ? showServer() : panel.showServer(null));
recorder.onKeyNeeded = (again) => {
  keyed = true;
  panel.askForKey((typed) => tryKey(typed, again));
};
notebook.onChange = showTranscript;
notebook.onReplaced = showReplaced;
player.onTime = showPlaying;
player.onError = () => panel.showMessage(t("unplayable"));
sheet.onWord = (seconds) => player.play(seconds);
addEventListener("beforeunload", (event) => recorder.isBusy && event.preventDefault());
addEventListener("pagehide", () => notebook.save());
addEventListener("keydown", ({ key }) => key === "Escape" && player.stop());
setInterval(() => !document.hidden && !recorder.isBusy && showServer(), LOOK_MILLISECONDS);

translatePage();
at("file").accept = ACCEPT;
at("formats").textContent = FORMATS;
connectButtons();
acceptDrops();
prepareCode(server, () => keyed);
panel.showState("idle");
notebook.restore();
showServer();
