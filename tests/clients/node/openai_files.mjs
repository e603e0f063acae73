// The package `openai`: a file with words and as an event stream; the model; a wrong key.
import { createReadStream } from "node:fs";
import OpenAI from "openai";
import { input, print } from "./common.mjs";

const client = new OpenAI({ apiKey: input.key, baseURL: `${input.http}/v1`, maxRetries: 0 });
const file = () => createReadStream(input.wav);
const create = (options) => client.audio.transcriptions.create({ model: "whisper-1", file: file(), ...options });

const verbose = await create({ response_format: "verbose_json", timestamp_granularities: ["word"] });
const events = [];
for await (const event of await create({ stream: true })) {
  events.push(event);
}
const models = (await client.models.list()).data.map((model) => model.id);
const wrong = new OpenAI({ apiKey: "wrong", baseURL: `${input.http}/v1`, maxRetries: 0 });
const refused = await wrong.models.list().catch((error) => error.status);
print({ text: verbose.text, words: verbose.words, duration: verbose.duration, events, models, refused });
