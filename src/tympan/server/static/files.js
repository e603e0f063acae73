// What the page knows of files: which are accepted, their waveform and their channels.

const MAX_DECODED_BYTES = 16 * 1024 * 1024; // larger files are transcribed, but not decoded for the waveform
const DECODED_RATE = 8000;
const CHANNELS_DIFFER = 0.5; // share of the difference of two channels in their sum; 0 for mono, 1 for two speakers

/** The containers that the server accepts (audio/containers/sniff.py), and the suffixes of those with another name. */
export const FORMATS =
  "wav, w64, mp3, mp2, flac, ogg, opus, webm, mkv, m4a, mp4, mov, aac, ac3, eac3, dts, aiff, au, caf, amr, wma, " +
  "wavpack, avi, flv, mpeg-ts, mpeg-ps";
const OTHER_SUFFIXES = "oga, spx, mka, m4b, m4v, 3gp, aif, aifc, snd, asf, wmv, wv, ts, mts, m2ts, mpg, mpeg, vob";
const NO_SUFFIXES = new Set(["wavpack", "mpeg-ts", "mpeg-ps"]);
const SUFFIXES = `${FORMATS}, ${OTHER_SUFFIXES}`.split(", ").filter((name) => !NO_SUFFIXES.has(name));

/** The value of `accept` for a file input. */
export const ACCEPT = ["audio/*", "video/*", ...SUFFIXES.map((suffix) => `.${suffix}`)].join(",");

/** Return whether the file may be audio, by its type or name; the server decides. */
export function mayBeAudio(file) {
  const suffix = file.name.toLowerCase().split(".").at(-1);
  return file.size > 0 && (/^(audio|video)\//.test(file.type) || SUFFIXES.includes(suffix));
}

/**
 * Return `{seconds, levels, channelsDiffer}` with `count` levels in [0, 1] for the waveform, or null if the browser
 * cannot decode the file.
 */
export async function outline(file, count) {
  if (file.size > MAX_DECODED_BYTES) return null;
  try {
    const decoder = new OfflineAudioContext(1, 1, DECODED_RATE);
    const audio = await decoder.decodeAudioData(await file.arrayBuffer());
    const samples = audio.getChannelData(0);
    const other = audio.numberOfChannels === 2 ? audio.getChannelData(1) : samples;
    const edge = (i) => Math.floor((i * samples.length) / count);
    const level = (i) => Math.max(...[samples, other].map((part) => loudness(part.subarray(edge(i), edge(i + 1)))));
    const levels = Array.from({ length: count }, (_, i) => level(i));
    const loudest = Math.max(...levels, 1e-6);
    return {
      seconds: audio.duration,
      levels: levels.map((level) => level / loudest),
      channelsDiffer: differ(samples, other),
    };
  } catch {
    return null;
  }
}

function differ(left, right) {
  let [difference, sum] = [0, 0];
  for (let i = 0; i < left.length; i++) {
    difference += (left[i] - right[i]) ** 2;
    sum += (left[i] + right[i]) ** 2;
  }
  return difference > CHANNELS_DIFFER * sum;
}

function loudness(samples) {
  return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / Math.max(1, samples.length));
}

/** Return the largest magnitude in `samples[from:to]`. */
export function peakOf(samples, from = 0, to = samples.length) {
  let peak = 0;
  for (let i = from; i < to; i++) peak = Math.max(peak, Math.abs(samples[i]));
  return peak;
}
