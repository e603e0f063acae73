// Shows a transcript: one paragraph per segment with its time, unsure words underlined, the partials in grey.

import { t } from "../texts/index.js";
import { clock } from "./clock.js";

const UNCERTAIN_BELOW = 0.5;
const NEAR_END_PIXELS = 160;

export class Sheet {
  /** Called with the time of a word that the user has chosen. */
  onWord = () => {};
  #box;
  #spoken;
  #shown = []; // {segment, element}
  #open = []; // paragraphs of words after the last segments
  #playing = null;

  /** `box` takes the paragraphs; `spoken` is a live region that screen readers read out, final words only. */
  constructor(box, spoken) {
    this.#box = box;
    this.#spoken = spoken;
    box.addEventListener("click", ({ target }) => {
      if (target.matches(".word") && getSelection().isCollapsed && this.#choose(target)) target.focus();
    });
    box.addEventListener("keydown", (event) => this.#onKey(event));
  }

  show(transcript) {
    const following = this.#atEnd();
    const two = transcript.channels > 1;
    this.#box.classList.toggle("two-channels", two);
    for (const element of this.#open) element.remove();
    // Of two channels, a segment may come before one that is shown.
    const { segments } = transcript;
    const changed = this.#shown.findIndex(({ segment }, i) => segment !== segments[i]);
    if (changed >= 0) for (const { element } of this.#shown.splice(changed)) element.remove();
    for (const segment of segments.slice(this.#shown.length)) {
      const element = paragraph({ words: segment.words, channel: two ? segment.channel : undefined });
      this.#box.append(element);
      this.#shown.push({ segment, element });
      this.#spoken.replaceChildren(textElement("p", segment.text));
    }
    this.#open = transcript.open
      .map((words, channel) => ({
        words,
        pending: transcript.pending[channel],
        glued: transcript.pendingGlued[channel],
        channel: two ? channel : undefined,
      }))
      .filter(({ words, pending }) => words.length > 0 || pending !== "")
      .map(paragraph);
    for (const element of this.#open) element.classList.add("open-segment");
    this.#box.append(...this.#open);
    if (following) window.scrollTo({ top: document.documentElement.scrollHeight });
  }

  /** Set whether words can be played: then the first one can be reached with the Tab key. */
  setPlayable(playable) {
    this.#box.classList.toggle("playable", playable);
    for (const word of this.#box.querySelectorAll("[tabindex]")) word.removeAttribute("tabindex");
    if (playable) this.#box.querySelector(".word")?.setAttribute("tabindex", "0");
  }

  /** Mark the word at this time; null marks none. */
  mark(seconds) {
    const said = seconds === null ? [] : [...this.#box.querySelectorAll(".word")];
    const word = said.findLast((element) => Number(element.dataset.start) <= seconds) ?? null;
    if (word === this.#playing) return;
    this.#playing?.classList.remove("playing");
    this.#playing = word;
    word?.classList.add("playing");
    word?.scrollIntoView({ block: "nearest" });
  }

  /** Report the word if it can be played; return whether it can. */
  #choose(word) {
    if (!this.#box.classList.contains("playable")) return false;
    this.#makeStop(word);
    this.onWord(Number(word.dataset.start));
    return true;
  }

  #onKey(event) {
    if (!event.target.matches(".word")) return;
    if (event.key === "Enter" || event.key === " ") this.#choose(event.target);
    else if (!this.#move(event)) return;
    event.preventDefault();
  }

  /** Move the focus to another word; return whether the key does. */
  #move({ key, target }) {
    const words = [...this.#box.querySelectorAll(".word")];
    const at = words.indexOf(target);
    const line = target.closest(".segment");
    const to = {
      ArrowRight: () => words[at + 1],
      ArrowLeft: () => words[at - 1],
      ArrowDown: () => line.nextElementSibling?.querySelector(".word"),
      ArrowUp: () => line.previousElementSibling?.querySelector(".word"),
      Home: () => words[0],
      End: () => words.at(-1),
    }[key];
    const word = to?.();
    if (word) this.#makeStop(word);
    word?.focus();
    return to !== undefined;
  }

  /** Make the word the one that the Tab key reaches. */
  #makeStop(word) {
    for (const other of this.#box.querySelectorAll("[tabindex]")) if (other !== word) other.removeAttribute("tabindex");
    word.setAttribute("tabindex", "0");
  }

  /** Return whether the view is at the end, where it should stay. */
  #atEnd() {
    const page = document.documentElement;
    return page.scrollHeight - page.scrollTop - page.clientHeight < NEAR_END_PIXELS;
  }
}

/** Return a paragraph of one segment; `channel` is undefined if there is only one. */
function paragraph({ words, pending = "", glued = false, channel }) {
  const element = document.createElement("p");
  element.className = "segment";
  const time = textElement("time", words.length > 0 ? clock(words[0].start) : "");
  if (channel !== undefined) {
    element.classList.add(`channel-${channel + 1}`);
    time.prepend(textElement("span", `${t(`channel.${channel + 1}`)}, `, "visually-hidden"));
  }
  const text = textElement("span", "", "text");
  words.forEach((word, i) => text.append(i > 0 ? " " : "", wordElement(word)));
  if (pending) text.append(words.length > 0 && !glued ? " " : "", textElement("span", pending, "partial"));
  element.append(time, text);
  return element;
}

function wordElement({ text, start, confidence }) {
  const unsure = confidence < UNCERTAIN_BELOW;
  const element = textElement("span", text, unsure ? "word unsure" : "word");
  element.dataset.start = String(start);
  element.title = t("word.title", { seconds: start.toFixed(1), percent: Math.round(confidence * 100) });
  return element;
}

function textElement(tag, text, className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}
