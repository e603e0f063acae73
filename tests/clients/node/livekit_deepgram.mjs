// LiveKit Agents for Node with the package `@livekit/agents-plugin-deepgram`, used as an agent uses it.
import { setTimeout as sleep } from "node:timers/promises";
import { initializeLogger, stt } from "@livekit/agents";
import { STT } from "@livekit/agents-plugin-deepgram";
import { AudioFrame } from "@livekit/rtc-node";
import { input, print, talk } from "./common.mjs";

initializeLogger({ pretty: false, level: "silent" });
const recognizer = new STT({ apiKey: input.key, baseUrl: input.ws, sampleRate: input.rate });
const stream = recognizer.stream();
const events = [];
const errors = [];
recognizer.on("error", (error) => errors.push(String(error.error ?? error)));
const collected = (async () => {
  for await (const event of stream) {
    events.push({ type: stt.SpeechEventType[event.type], text: event.alternatives?.[0]?.text ?? "" });
  }
})();
await talk(
  (chunk) => {
    const samples = new Int16Array(Uint8Array.from(chunk).buffer);
    stream.pushFrame(new AudioFrame(samples, input.rate, 1, samples.length));
  },
  { milliseconds: 50, speed: 2 },
);
stream.flush(); // the plugin sends no silence, and discards what arrives after the end of the input
const deadline = Date.now() + 15_000;
while (!/ten/i.test(events.findLast((event) => event.type === "FINAL_TRANSCRIPT")?.text) && Date.now() < deadline) {
  await sleep(50);
}
stream.endInput();
await collected;
print({ events, errors });
