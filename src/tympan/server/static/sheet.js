// Shows a transcript: one paragraph per segment with its time, unsure words underlined, the partial in grey.

import { clock } from "./clock.js";

const UNCERTAIN_BELOW = 0.5;
const NEAR_END_PIXELS = 160;

export class Sheet {
  #box;
  #spoken;
  #shown = 0; // segments on the page
  #openParagraph = null;

  /** `box` takes the paragraphs; `spoken` is a live region that screen readers read out, final words only. */
  constructor(box, spoken) {
    this.#box = box;
    this.#spoken = spoken;
  }

  show(transcript) {
    const following = this.#atEnd();
    if (this.#shown > transcript.segments.length) this.#empty();
    this.#openParagraph?.remove();
    for (const segment of transcript.segments.slice(this.#shown)) {
      this.#box.append(paragraph(segment.words));
      this.#spoken.replaceChildren(textElement("p", segment.text));
    }
    this.#shown = transcript.segments.length;
    this.#showOpen(transcript);
    if (following) window.scrollTo({ top: document.documentElement.scrollHeight });
  }

  #showOpen({ open, pending }) {
    this.#openParagraph = null;
    if (open.length === 0 && pending === "") return;
    this.#openParagraph = paragraph(open, pending);
    this.#openParagraph.classList.add("open-segment");
    this.#box.append(this.#openParagraph);
  }

  #empty() {
    this.#box.replaceChildren();
    this.#shown = 0;
    this.#openParagraph = null;
  }

  /** Return whether the view is at the end, where it should stay. */
  #atEnd() {
    const page = document.documentElement;
    return page.scrollHeight - page.scrollTop - page.clientHeight < NEAR_END_PIXELS;
  }
}

function paragraph(words, pending = "") {
  const element = document.createElement("p");
  element.className = "segment";
  const time = textElement("time", words.length > 0 ? clock(words[0].start) : "");
  const text = textElement("span", "", "text");
  words.forEach((word, i) => text.append(i > 0 ? " " : "", wordElement(word)));
  if (pending) text.append(words.length > 0 ? " " : "", textElement("span", pending, "partial"));
  element.append(time, text);
  return element;
}

function wordElement({ text, start, confidence }) {
  const unsure = confidence < UNCERTAIN_BELOW;
  const element = textElement("span", text, unsure ? "word unsure" : "word");
  element.title = `${start.toFixed(1)} s, ${Math.round(confidence * 100)} % sure`;
  return element;
}

function textElement(tag, text, className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}
