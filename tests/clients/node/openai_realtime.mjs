// The package `openai`: a realtime session with turns of the server. The package always opens `wss`.
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { input, print, talk } from "./common.mjs";

const client = new OpenAI({ apiKey: input.key, baseURL: `${input.https}/v1` });
const socket = new OpenAIRealtimeWS({ model: "whisper-1" }, client);
const types = [];
const transcripts = [];
const errors = [];
socket.on("error", (error) => errors.push(error.message));
socket.on("event", (event) => types.push(event.type));
socket.on("session.created", () =>
  socket.send({
    type: "session.update",
    session: {
      type: "transcription",
      audio: { input: { format: { type: "audio/pcm", rate: input.rate }, turn_detection: { type: "server_vad" } } },
    },
  }),
);
socket.on("session.updated", () =>
  talk((chunk) => socket.send({ type: "input_audio_buffer.append", audio: chunk.toString("base64") })),
);
socket.on("conversation.item.input_audio_transcription.completed", (event) => {
  transcripts.push(event.transcript);
  if (transcripts.length === 2) {
    socket.socket.on("close", (code) => print({ types, transcripts, errors, code }));
    socket.close();
  }
});
