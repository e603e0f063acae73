/** A final word. Times are seconds in the transcript. */
export interface Word {
  text: string;
  start: number;
  end: number;
  /** 0 to 1. */
  confidence: number;
  /** The word continues the one before it without a space. */
  glued?: boolean;
  /** Only with 2 channels. */
  channel?: number;
}

/** The words up to a pause. */
export interface Segment {
  text: string;
  start: number;
  end: number;
  words: Word[];
  channel?: number;
}

export interface Health {
  status: "ok" | "starting";
  version: string;
  /** Only while the server starts: its stage. */
  reason?: string;
  model?: string;
  engine?: string;
  device?: string;
  capacity?: number;
  active?: number;
  notice?: string;
}

export interface Refusal {
  code: "unreachable" | "unauthorized" | "full" | "restarting" | "unknown";
  message: string;
  capacity?: number;
  reason?: string;
}

export interface ServerOptions {
  /** An API key or an access token. */
  key?: string;
  /** The WebSocket class, where there is no global one. */
  WebSocket?: unknown;
}

/** A server: its address and key. */
export class Server {
  /** `url` is `http(s)://` or `ws(s)://`, with the prefix of a proxy; by default the page's own address. */
  constructor(url?: string | URL, options?: ServerOptions);
  key: string;
  get url(): string;
  /** The response of `/health`, or null if the server is unreachable. */
  health(): Promise<Health | null>;
  keyAccepted(key?: string): Promise<boolean>;
  /** The paths of the pages of documentation that the server has, relative to `guide/`. */
  documentation(): Promise<string[]>;
  whyRefused(): Promise<Refusal>;
}

/** What a session transcribes. */
export type Source = LiveSource | Recording;

/** 16-bit mono samples that arrive in real time. The last minute is kept, so that a lost connection loses none. */
export class LiveSource {
  /** `sampleRate` is 8000 to 48000 Hz. */
  constructor(sampleRate: number);
  readonly live: boolean;
  /** Seconds of audio so far. */
  seconds: number;
  onChunk: (samples: Int16Array) => void;
  push(samples: Int16Array | ArrayBuffer): void;
  setPaused(paused: boolean): Promise<void>;
  stop(): Promise<void>;
}

/** The output of a Web Audio node. Only in browsers. */
export class Capture extends LiveSource {
  static openContext(): Promise<AudioContext>;
  constructor(context: AudioContext, input: AudioNode);
}

/** The microphone. Only in browsers. */
export class Microphone extends Capture {
  /** Rejects with `MicrophoneError`. */
  static open(): Promise<Microphone>;
  constructor(context: AudioContext, media: MediaStream);
  /** Called when the device is disconnected. */
  onLost: () => void;
}

export class MicrophoneError extends Error {
  constructor(code: MicrophoneError["code"], detail?: string);
  code: "insecure" | "denied" | "missing" | "busy" | "failed";
  detail: string;
}

/** A file in any container that the server accepts. */
export class Recording {
  /** With 2 channels, each is transcribed separately, as a stream of its own. */
  constructor(file: Blob, options?: { channels?: 1 | 2 });
  readonly live: boolean;
  readonly name: string;
  readonly channels: number;
  stopped: boolean;
  /** Called with the share that has been sent, 0 to 1. */
  onProgress: (share: number) => void;
  stop(): Promise<void>;
}

export class Transcript {
  segments: Segment[];
  /** Of each channel: the final words after its last segment. */
  open: Word[][];
  /** Of each channel: the text after its last final word, which may still change. */
  pending: string[];
  /** Of each channel: whether that text continues the word without a space. */
  pendingGlued: boolean[];
  onChange: () => void;
  get channels(): number;
  /** All segments; the last one of each channel has the words since the last pause. */
  get all(): Segment[];
  /** The final text, a line for each segment. */
  get text(): string;
  get wordCount(): number;
  get isEmpty(): boolean;
  word(word: Word): void;
  partial(text: string, channel?: number, glued?: boolean): void;
  segment(segment: Omit<Segment, "words">): void;
  close(): void;
  replace(segments: Segment[], channels?: number): void;
}

export interface Handlers {
  state?: (state: "connecting" | "running" | "reconnecting" | "finishing") => void;
  lag?: (lag: { received: number; processed: number; behind: number }) => void;
  turn?: (state: "started" | "ended") => void;
  warning?: (sentence: string, code: string) => void;
  word?: (word: Word) => void;
  /** All words are there; `seconds` of audio were transcribed. */
  complete?: (seconds: number) => void;
}

/** One recording from its first sample to the last word, over as many connections as it takes. */
export class Session {
  /** `start` is where the source begins in the transcript, in seconds. */
  constructor(server: Server, source: Source, transcript: Transcript, options?: { start?: number; on?: Handlers });
  /** Resolves when the recording is complete or was stopped; rejects with `SessionError`. */
  run(): Promise<void>;
  /** Pause or continue a live source. */
  setPaused(paused: boolean): Promise<void>;
  get isPaused(): boolean;
  /** Send the remaining audio, then wait for the last words; a second call does not wait. */
  stop(): Promise<void>;
  abandon(): void;
  /** Seconds of live audio that are queued here. */
  get unsentSeconds(): number;
}

/** The server has ended or refused the stream; the message can be shown. */
export class SessionError extends Error {
  constructor(code: string, message: string, details?: Record<string, unknown>);
  code: string;
  details: Record<string, unknown>;
}
