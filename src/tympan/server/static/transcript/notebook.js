// The transcript on the page with what belongs to it, the one before it, and what remains after a reload.

import { Transcript } from "../client/index.js";

const NAME = "tympan-transcript";
const SAVE_AFTER_MILLISECONDS = 500;

export class Notebook {
  transcript = new Transcript();
  /** Of audio transcribed so far; the microphone continues from here. */
  seconds = 0;
  /** Name of the transcribed file; empty for the microphone. */
  file = "";
  /** Called after every change of the transcript. */
  onChange = () => {};
  /** Called when another transcript is shown. */
  onReplaced = () => {};
  #player;
  #earlier = null; // the previous transcript, as `#kept` returns it
  #saving = 0;

  constructor(player) {
    this.#player = player;
    this.transcript.onChange = () => {
      this.onChange();
      this.#saving ||= setTimeout(() => this.save(), SAVE_AFTER_MILLISECONDS);
    };
  }

  get hasEarlier() {
    return this.#earlier !== null;
  }

  /** Clear the transcript, and keep it so that it can be restored. */
  startNew(file = "", channels = 1) {
    if (!this.transcript.isEmpty) this.#earlier = this.#kept();
    this.#show({ segments: [], channels, seconds: 0, file, tracks: [] });
  }

  /** Swap the transcript with the one that was cleared. */
  swap() {
    const back = this.#earlier;
    this.#earlier = this.transcript.isEmpty ? null : this.#kept();
    if (back) this.#show(back);
  }

  /** Add the audio of a recording. */
  addTrack(track) {
    this.#player.tracks.push(track);
  }

  /** Show the transcript that the last visit of this tab has left; its audio is lost. */
  restore() {
    try {
      const saved = JSON.parse(sessionStorage.getItem(NAME));
      if (saved) this.#show({ ...saved, tracks: [] });
    } catch {
      sessionStorage.removeItem(NAME); // another version has written it
    }
  }

  save() {
    clearTimeout(this.#saving);
    this.#saving = 0;
    const { tracks, ...saved } = this.#kept();
    try {
      if (this.transcript.isEmpty) sessionStorage.removeItem(NAME);
      else sessionStorage.setItem(NAME, JSON.stringify(saved));
    } catch {
      // No room: the transcript is longer than browsers keep (5 MB, about eight hours of speech).
    }
  }

  #kept() {
    const { all, channels } = this.transcript;
    return { segments: all, channels, seconds: this.seconds, file: this.file, tracks: this.#player.tracks };
  }

  #show({ segments, channels, seconds, file, tracks }) {
    this.#player.stop();
    this.#player.tracks = tracks;
    this.seconds = seconds;
    this.file = file;
    this.transcript.replace(segments, channels);
    this.onReplaced();
  }
}
