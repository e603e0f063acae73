// Uses every type of the package as a strict TypeScript program does; `tsc --noEmit` checks it.
import {
  Capture,
  type Health,
  LiveSource,
  Microphone,
  MicrophoneError,
  Recording,
  type Refusal,
  type Segment,
  Server,
  Session,
  SessionError,
  type Source,
  Transcript,
  type Word,
} from "../../../clients/js/index.js";

export async function transcribe(file: Blob, url: string): Promise<Segment[]> {
  const server = new Server(url, { key: "key" });
  const health: Health | null = await server.health();
  const transcript = new Transcript();
  const on = { word: (word: Word) => console.log(word.text, word.end - word.start) };
  const session = new Session(server, new Recording(file, { channels: 2 }), transcript, { start: health?.active ?? 0, on });
  try {
    await session.run();
  } catch (error) {
    if (error instanceof SessionError) console.log(error.code, error.details);
    const refusal: Refusal = await server.whyRefused();
    console.log(refusal.message);
  }
  return transcript.all;
}

export async function listen(): Promise<Source> {
  try {
    const microphone = await Microphone.open();
    microphone.onChunk = (samples: Int16Array) => console.log(samples.length, microphone.seconds);
    await microphone.setPaused(true);
    return microphone;
  } catch (error) {
    if (error instanceof MicrophoneError && error.code === "denied") console.log(error.message);
    const source = new LiveSource(24_000);
    source.push(new Int16Array(1920));
    return source;
  }
}

export async function capture(node: AudioNode): Promise<Capture> {
  return new Capture(await Capture.openContext(), node);
}

// @ts-expect-error: a source has a rate in Hz, and no other type
new LiveSource("24000");
