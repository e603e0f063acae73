// A file as a source of audio: sends its bytes unchanged, as fast as the server accepts them.

const CHUNK_BYTES = 64 * 1024;
const MAX_DRAWN_BYTES = 16 * 1024 * 1024; // larger files are transcribed, but not decoded for the waveform
const DRAWN_RATE = 8000;
const KNOWN_NAME = /\.(wav|mp3|flac|m4a|mp4|aac|ogg|oga|opus|webm)$/i;

/** Return whether the file may be audio, by its type or name; the server decides. */
export function mayBeAudio(file) {
  return file.size > 0 && (/^(audio|video)\//.test(file.type) || KNOWN_NAME.test(file.name));
}

export class Recording {
  live = false;
  parameters = { encoding: "auto" };
  /** Called with the share sent so far, 0 to 1. */
  onProgress = () => {};
  #file;
  stopped = false;

  constructor(file) {
    this.#file = file;
  }

  get name() {
    return this.#file.name;
  }

  /** Send the whole file; a container cannot be continued in its middle, so a restart begins at time 0. */
  start(stream) {
    this.#pump(stream, 0);
    return 0;
  }

  /** Continue on another connection after the bytes that the server has received. */
  resume(stream, bytes) {
    this.#pump(stream, bytes);
  }

  async stop() {
    this.stopped = true;
  }

  async #pump(stream, from) {
    for (let at = from; at < this.#file.size && stream.isOpen && !this.stopped; at += CHUNK_BYTES) {
      stream.send(await this.#file.slice(at, at + CHUNK_BYTES).arrayBuffer());
      this.onProgress(Math.min(1, (at + CHUNK_BYTES) / this.#file.size));
      await stream.drained();
    }
    stream.finish();
  }
}

/** Return `{seconds, levels}` with `count` levels in [0, 1] for the waveform, or null if decoding fails. */
export async function outline(file, count) {
  if (file.size > MAX_DRAWN_BYTES) return null;
  try {
    const decoder = new OfflineAudioContext(1, 1, DRAWN_RATE);
    const audio = await decoder.decodeAudioData(await file.arrayBuffer());
    const samples = audio.getChannelData(0);
    const edge = (i) => Math.floor((i * samples.length) / count);
    const levels = Array.from({ length: count }, (_, i) => loudness(samples.subarray(edge(i), edge(i + 1))));
    const loudest = Math.max(...levels, 1e-6);
    return { seconds: audio.duration, levels: levels.map((level) => level / loudest) };
  } catch {
    return null;
  }
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
