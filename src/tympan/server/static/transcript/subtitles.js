// Divides a transcript into subtitles by the rules of `tympan transcribe`, so that both write the same file.

const LINE_CHARACTERS = 42;
const CUE_SECONDS = 7;
const MIN_CUE_SECONDS = 1; // unless the next cue begins before
const PAUSE_SECONDS = 0.7;

/** Return SubRip; it has no escapes, so arrows, which would be read as a line of times, are replaced. */
export function srt(segments) {
  const text = (cue) => cue.lines.join("\n").replaceAll("-->", "→");
  return cues(segments).map((cue, i) => `${i + 1}\n${span(cue, ",")}\n${text(cue)}\n\n`).join("");
}

/** Return WebVTT. */
export function vtt(segments) {
  const text = (cue) => escaped(cue.lines.join("\n"));
  return "WEBVTT\n\n" + cues(segments).map((cue) => `${span(cue, ".")}\n${text(cue)}\n\n`).join("");
}

/** Return cues `{lines, start, end}` with times in milliseconds, in order and without overlaps. */
function cues(segments) {
  const made = [];
  for (const group of segments.flatMap((segment) => groups(segment.words))) {
    const start = Math.max(milliseconds(group[0].start), made.at(-1)?.end ?? 0);
    const end = Math.min(milliseconds(group.at(-1).end), start + milliseconds(CUE_SECONDS));
    made.push({ lines: lines(group.map((word) => word.text)), start, end: Math.max(end, start + 1) });
  }
  made.forEach((cue, i) => {
    const following = made[i + 1]?.start ?? Infinity;
    cue.end = Math.max(cue.end, Math.min(cue.start + milliseconds(MIN_CUE_SECONDS), following));
  });
  return made;
}

/** Yield the words of each cue. */
function groups(words) {
  const made = [];
  for (const word of words) {
    const group = made.at(-1);
    if (group && fits(group, word)) group.push(word);
    else made.push([word]);
  }
  return made;
}

function fits(group, word) {
  return (
    word.start - group.at(-1).end < PAUSE_SECONDS &&
    word.end - group[0].start <= CUE_SECONDS &&
    filled([...group, word].map(({ text }) => text)).length <= 2
  );
}

/** Return the fewest lines that hold the words. */
function filled(texts) {
  const made = [texts[0]];
  for (const text of texts.slice(1)) {
    if (made.at(-1).length + 1 + text.length <= LINE_CHARACTERS) made[made.length - 1] += ` ${text}`;
    else made.push(text);
  }
  return made;
}

/** Return the words on one line, or on two of similar length. */
function lines(texts) {
  const whole = filled(texts);
  if (whole.length === 1) return whole;
  const pairs = texts.slice(1).map((_, i) => [texts.slice(0, i + 1).join(" "), texts.slice(i + 1).join(" ")]);
  const longest = ([first, second]) => Math.max(first.length, second.length);
  return pairs.reduce((best, pair) => (longest(pair) < longest(best) ? pair : best));
}

function span({ start, end }, mark) {
  return `${stamp(start, mark)} --> ${stamp(end, mark)}`;
}

function stamp(time, mark) {
  const seconds = Math.floor(time / 1000);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return parts.map((part) => String(part).padStart(2, "0")).join(":") + mark + String(time % 1000).padStart(3, "0");
}

function milliseconds(seconds) {
  return Math.max(0, Math.round(seconds * 1000));
}

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
