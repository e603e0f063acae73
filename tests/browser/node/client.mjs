// The package `clients/js` in Node: a file, live samples over a cut connection, a wrong key. Prints one line of JSON.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import * as client from "../../../clients/js/index.js";

const { LiveSource, Recording, Server, Session, Transcript } = client;
const input = JSON.parse(process.argv[2]);

async function run(server, source, whileRunning = () => {}) {
  const transcript = new Transcript();
  const states = [];
  const session = new Session(server, source, transcript, { on: { state: (state) => states.push(state) } });
  try {
    await Promise.all([session.run(), whileRunning(session, transcript)]);
  } catch (error) {
    return { code: error.code, message: error.message };
  }
  return { text: transcript.text, words: transcript.wordCount, states };
}

async function speak(session, transcript, source) {
  const chunk = new Int16Array(1920);
  for (let sent = 0; sent < 100; sent++) {
    source.push(chunk);
    await sleep(20);
    if (sent === 50) await fetch(input.cut, { method: "POST" });
  }
  await session.stop();
}

const wav = new Blob([readFileSync(input.wav)]);
const call = new Blob([readFileSync(input.call)]);
const live = new LiveSource(24_000);
const lossy = new Server(input.proxy, { key: input.key });
const result = {
  names: Object.keys(client).sort(),
  url: new Server(`${input.http}?token=x`).url,
  file: await run(new Server(input.http, { key: input.key }), new Recording(wav)),
  call: await run(new Server(input.http, { key: input.key }), new Recording(call, { channels: 2 })),
  live: await run(lossy, live, (session, transcript) => speak(session, transcript, live)),
  wrongKey: await run(new Server(input.http, { key: "wrong" }), new Recording(wav)),
  unreachable: await run(new Server("http://127.0.0.1:9"), new Recording(wav)),
};
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
