// The package `@openai/agents`: the WebSocket transport of its realtime agents, which reports what the user says.
import { OpenAIRealtimeWebSocket } from "@openai/agents/realtime";
import { input, print, talk } from "./common.mjs";

const transport = new OpenAIRealtimeWebSocket({ url: `${input.ws}/v1/realtime?model=whisper-1` });
const transcripts = [];
const errors = [];
transport.on("error", (error) => errors.push(JSON.stringify(error)));
transport.on("conversation.item.input_audio_transcription.completed", (event) => {
  transcripts.push(event.transcript);
  if (transcripts.length === 2) {
    print({ transcripts, errors });
  }
});
await transport.connect({
  apiKey: input.key,
  model: "whisper-1",
  url: `${input.ws}/v1/realtime?model=whisper-1`,
  initialSessionConfig: {
    outputModalities: ["text"],
    audio: { input: { format: { type: "audio/pcm", rate: input.rate }, turnDetection: { type: "server_vad" } } },
  },
});
await talk((chunk) => transport.sendAudio(Uint8Array.from(chunk).buffer));
