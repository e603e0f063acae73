// The package `@deepgram/sdk`: a live stream, Flux, a file, a wrong key.
import { createReadStream } from "node:fs";
import { DeepgramClient } from "@deepgram/sdk";
import { input, print, talk } from "./common.mjs";

const environment = { base: input.http, production: input.ws, agent: input.ws, agentRest: input.http };
const options = (apiKey) => ({ apiKey, environment, maxRetries: 0 });
const client = new DeepgramClient(options(input.key));

async function stream(listen, settings) {
  const socket = await listen.connect({ encoding: "linear16", sample_rate: input.rate, ...settings });
  const messages = [];
  const errors = [];
  const closed = new Promise((resolve) => socket.on("close", (event) => resolve(event.code)));
  socket.on("message", (message) => messages.push(message));
  socket.on("error", (error) => errors.push(error.message));
  socket.connect();
  await socket.waitForOpen();
  await talk((chunk) => socket.sendMedia(chunk));
  socket.sendCloseStream({ type: "CloseStream" });
  const code = await closed;
  socket.close();
  return { messages, errors, code };
}

const [live, flux] = await Promise.all([
  stream(client.listen.v1, { model: "nova-3", interim_results: "true" }),
  stream(client.listen.v2, { model: "flux-general-en" }),
]);
const file = await client.listen.v1.media.transcribeFile(createReadStream(input.wav), { model: "nova-3" });
const refused = await new DeepgramClient(options("wrong")).listen.v1.media
  .transcribeFile(createReadStream(input.wav), { model: "nova-3" })
  .catch((error) => error.statusCode);
print({ live, flux, file, refused });
