// Exports a transcript to the clipboard, or as a file of text, subtitles or JSON.

import { srt, vtt } from "./subtitles.js";

const TYPES = { txt: "text/plain", srt: "application/x-subrip", vtt: "text/vtt", json: "application/json" };
const REVOKE_AFTER_MILLISECONDS = 10_000;

/** Return `segments` as txt, srt, vtt or json; `about` has `file`, `model` and `duration` for the JSON. */
export function formatted(format, segments, about = {}) {
  switch (format) {
    case "txt":
      return segments.map((segment) => `${labelled(segment)}\n`).join("");
    case "srt":
      return srt(segments);
    case "vtt":
      return vtt(segments);
    case "json":
      return json(segments, about);
    default:
      throw new Error(`unknown format ${format}`);
  }
}

/** Return the fields of `tympan transcribe --format json`, indented. */
function json(segments, about) {
  const words = segments.flatMap((segment) => segment.words);
  const fields = {
    ...about,
    text: words.map((word) => word.text).join(" "),
    words,
    segments: segments.map(({ words, ...segment }) => segment),
  };
  return JSON.stringify(fields, (key, value) => (typeof value === "number" ? rounded(value) : value), 2) + "\n";
}

/** Offer `text` as a download. */
export function download(name, format, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: `${TYPES[format]};charset=utf-8` }));
  link.download = `${name}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), REVOKE_AFTER_MILLISECONDS);
}

/** Copy text; an open modal dialog must be `parent`, since only its elements can be selected. */
export async function copy(text, parent = document.body) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Pages that are neither https nor localhost have no clipboard API, but this deprecated command.
  const area = document.createElement("textarea");
  area.value = text;
  parent.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Return the text of a segment, with the number of its channel if there are two. */
function labelled({ text, channel }) {
  return channel === undefined ? text : `${channel + 1}: ${text}`;
}

/** Round seconds to milliseconds. */
function rounded(number) {
  return Math.round(number * 1000) / 1000;
}
