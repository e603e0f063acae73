// Records the microphone, plays the sample and reads files: one at a time, each as a session with the server.

import { Microphone, MicrophoneError, Recording, Session, SessionError } from "./client/index.js";
import { mayBeAudio, outline, peakOf } from "./files.js";
import * as panel from "./panel.js";
import { Sample } from "./sample.js";
import { t, translated } from "./texts/index.js";
import { Tape } from "./transcript/player.js";

const WORTH_ANOTHER_TRY = new Set(["full", "restarting", "unreachable", "lost", "unknown", "engine", "internal"]);
const LATENCY_WORDS = 15;

export class Recorder {
  /** Called when a recording begins or ends. */
  onBusy = () => {};
  /** Called with false when the connection is lost, and with true when it is back. */
  onConnected = () => {};
  /** Called if the server requires a key, with what to do once it has one. */
  onKeyNeeded = () => {};
  isBusy = false; // a recording runs, or the microphone is being opened
  #server;
  #notebook;
  #waveform;
  #session = null;

  constructor(server, notebook, waveform) {
    this.#server = server;
    this.#notebook = notebook;
    this.#waveform = waveform;
  }

  /** Start the microphone, or stop the recording. */
  async toggle() {
    if (this.#session) return this.#session.stop();
    await this.#record(() => Microphone.open(), () => this.toggle());
  }

  async playSample(url) {
    await this.#record(async () => {
      const sample = await Sample.open(url);
      this.#notebook.startNew(url.split("/").at(-1));
      return sample;
    }, () => this.playSample(url));
  }

  async togglePause() {
    const session = this.#session;
    if (!session) return;
    const paused = !session.isPaused;
    await session.setPaused(paused);
    if (this.#session !== session) return; // it has ended meanwhile
    panel.showPause(true, paused);
    if (paused) panel.showLevel([]);
  }

  /** Transcribe a file; with 2 `channels`, each separately. */
  async transcribe(file, channels = 1) {
    if (this.isBusy) return panel.showMessage(t("busy.file"));
    if (!mayBeAudio(file)) return panel.showMessage(t("unreadable", { name: file.name }));
    this.#begin();
    this.#notebook.startNew(file.name, channels);
    try {
      const complete = await this.#read(file, channels);
      if (!complete && this.#notebook.transcript.isEmpty) this.#notebook.swap();
    } finally {
      this.#end();
    }
  }

  /** Record a source that `open` returns; `again` is the action of "Try again". */
  async #record(open, again) {
    if (this.isBusy) return; // the browser is asking for permission to use the microphone
    this.#begin();
    try {
      const refusal = await this.#server.whyRefused();
      if (refusal.code !== "unknown") return this.#showRefusal(refusal, again);
      await this.#listen(await open(), again);
    } catch (error) {
      if (!(error instanceof MicrophoneError)) throw error;
      panel.showMessage(translated("microphone", error.code, error.message));
    } finally {
      this.#end();
    }
  }

  async #listen(source, again) {
    const start = this.#notebook.seconds;
    const tape = new Tape(start, source.parameters.sample_rate);
    const latencies = [];
    this.#waveform.reset();
    source.onChunk = (samples) => {
      tape.push(samples);
      this.#showSound(samples, start + source.seconds);
    };
    source.onLost = () => {
      panel.showMessage(t("microphone.lost"));
      this.#session?.stop();
    };
    source.onEnded = () => this.#session?.stop();
    const onWord = (word) => {
      latencies.push(start + source.seconds - word.end);
      panel.showLatency(median(latencies.slice(-LATENCY_WORDS)));
    };
    // Phones switch off the microphone together with the screen.
    const awake = await navigator.wakeLock?.request("screen").catch(() => null);
    source.play?.();
    await this.#run(source, start, again, { word: onWord });
    this.#notebook.addTrack(tape.finish());
    panel.showLevel([]);
    await awake?.release();
  }

  #showSound(samples, seconds) {
    this.#notebook.seconds = seconds;
    panel.showElapsed(seconds);
    panel.showLevel(samples);
    const middle = samples.length >> 1;
    this.#waveform.push(peakOf(samples, 0, middle) / 32768);
    this.#waveform.push(peakOf(samples, middle) / 32768);
  }

  async #read(file, channels) {
    const source = new Recording(file, { channels });
    this.#waveform.showFile();
    panel.showLatency(null);
    let length = Infinity;
    const outlined = outline(file, this.#waveform.bars).then((picture) => {
      length = picture?.seconds ?? Infinity;
      if (picture && !source.stopped) this.#waveform.showFile(picture.levels);
      return picture;
    });
    source.onProgress = (fraction) => length === Infinity && this.#waveform.progress(fraction);
    const lag = ({ processed }) => {
      this.#notebook.seconds = processed;
      panel.showElapsed(processed, length);
      if (length < Infinity) this.#waveform.progress(processed / length);
    };
    this.#notebook.addTrack({ start: 0, end: Infinity, blob: file });
    const complete = await this.#run(source, 0, () => this.transcribe(file, channels), { lag });
    if (complete) this.#waveform.progress(1);
    if (complete && channels === 1) this.#offerChannels(file, await outlined);
    return complete;
  }

  #offerChannels(file, picture) {
    if (!picture?.channelsDiffer) return;
    const action = () => this.transcribe(file, 2);
    panel.showMessage(t("channels.offer"), { label: t("channels.split"), action });
  }

  /** Run one recording to its end and return whether it succeeded. */
  async #run(source, start, again, { lag = () => {}, word = () => {} }) {
    const { transcript } = this.#notebook;
    const on = {
      state: (state) => this.#showProgress(state, source.live),
      lag: (message) => {
        panel.showLag(source.live ? message.behind + this.#session.unsentSeconds : 0);
        lag(message);
      },
      turn: (state) => (panel.at("transcript").dataset.turn = state),
      warning: (sentence, code) => panel.showMessage(translated("warning", code, sentence)),
      complete: (audioSeconds) => (this.#notebook.seconds = start + audioSeconds),
      word,
    };
    this.#session = new Session(this.#server, source, transcript, { start, on });
    try {
      await this.#session.run();
      return true;
    } catch (error) {
      if (!(error instanceof SessionError)) throw error;
      if (error.code === "bad_audio") panel.showMessage(t("unreadable", { name: source.name }));
      else this.#showRefusal(error, again);
      return false;
    } finally {
      this.#session = null;
      await source.stop();
      transcript.close();
    }
  }

  #begin() {
    this.isBusy = true;
    panel.hideMessage();
    panel.hideKeyForm();
    panel.showState("connecting");
    this.onBusy(true);
  }

  #end() {
    this.isBusy = false;
    panel.showElapsed(this.#notebook.seconds);
    panel.showState("idle");
    this.#notebook.save();
    this.onBusy(false);
  }

  #showProgress(state, live) {
    panel.showState(state);
    if (state === "running") {
      panel.hideMessage("reconnecting");
      panel.showPause(live, this.#session.isPaused);
      this.onConnected(true);
    }
    if (state !== "reconnecting") return;
    this.onConnected(false);
    const meanwhile = t(live ? "reconnecting.live" : "reconnecting.file");
    panel.showMessage(`${t("reconnecting")} ${meanwhile}`, { kind: "reconnecting" });
  }

  #showRefusal({ code, message }, again) {
    if (code === "unauthorized") return this.onKeyNeeded(again);
    const retry = WORTH_ANOTHER_TRY.has(code) ? { label: t("retry"), action: again } : {};
    panel.showMessage(translated("error", code, message), retry);
  }
}

function median(values) {
  return [...values].sort((one, other) => one - other)[values.length >> 1];
}
