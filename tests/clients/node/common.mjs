// What the scripts share: their input, which is one argument in JSON, and their output, which is one line of JSON.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

export const input = JSON.parse(process.argv[2]);

/** Return the chunks of the file of raw samples, of `milliseconds` each. */
export function* chunks(milliseconds) {
  const pcm = readFileSync(input.pcm);
  const size = ((input.rate * milliseconds) / 1000) * 2;
  for (let start = 0; start < pcm.length; start += size) {
    yield pcm.subarray(start, start + size);
  }
}

/** Send the audio at `speed` times its pace. */
export async function talk(send, { milliseconds = 80, speed = 8 } = {}) {
  for (const chunk of chunks(milliseconds)) {
    send(chunk);
    await sleep(milliseconds / speed);
  }
}

export function print(result) {
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}
