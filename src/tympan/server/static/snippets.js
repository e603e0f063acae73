// Examples of clients for the server that serves this page.

/** Return the command that downloads the sample which the examples transcribe. */
export function fetchCommand(url) {
  return `curl -O ${url}/static/sample.mp3`;
}

/** Return `{name, docs, text}` of each example; `keyed` is whether the server requires a key. */
export function snippets(url, keyed) {
  const ws = url.replace("http", "ws");
  const key = keyed ? "KEY" : "none";
  return [
    {
      name: "WebSocket",
      docs: "protocols/native.md",
      text: `# pip install websockets
import json
from websockets.sync.client import connect

with connect("${ws}/v1/stream?encoding=auto${keyed ? `&token=${key}` : ""}") as socket:
    socket.send(open("sample.mp3", "rb").read())
    socket.send("EOS")
    for message in socket:
        print(json.loads(message).get("text", ""), end="", flush=True)`,
    },
    {
      name: "Python",
      docs: "protocols/native.md",
      text: `import tympan

with tympan.connect_sync("${ws}", encoding="auto"${keyed ? `, token="${key}"` : ""}) as stream:
    with open("sample.mp3", "rb") as file:
        for event in stream.transcribe(iter(lambda: file.read(16384), b"")):
            if isinstance(event, tympan.Word):
                print(event.text, end=" ", flush=True)`,
    },
    {
      name: "JavaScript",
      docs: "protocols/native.md",
      text: `const { Recording, Server, Session, Transcript } = await import("${url}/static/client/index.js");

const transcript = new Transcript();
transcript.onChange = () => console.log(transcript.text + " " + transcript.pending);
const sample = await (await fetch("${url}/static/sample.mp3")).blob();
const server = new Server("${url}"${keyed ? `, { key: "${key}" }` : ""});
await new Session(server, new Recording(sample), transcript).run();`,
    },
    {
      name: "Deepgram",
      docs: "protocols/deepgram.md",
      text: `# pip install deepgram-sdk
from deepgram import DeepgramClient, DeepgramClientEnvironment

http, ws = "${url}", "${ws}"
environment = DeepgramClientEnvironment(base=http, production=ws, agent=ws, agent_rest=http)
client = DeepgramClient(api_key="${key}", environment=environment)
with client.listen.v1.connect(model="nova-3") as socket:
    socket.send_media(open("sample.mp3", "rb").read())
    socket.send_close_stream()
    for message in socket:
        if message.type == "Results":
            print(message.channel.alternatives[0].transcript)`,
    },
    {
      name: "OpenAI",
      docs: "protocols/openai.md",
      text: `# pip install openai
from openai import OpenAI

client = OpenAI(base_url="${url}/v1", api_key="${key}")
with open("sample.mp3", "rb") as file:
    print(client.audio.transcriptions.create(model="whisper-1", file=file).text)`,
    },
    {
      name: "curl",
      docs: "protocols/openai.md",
      text: `curl ${url}/v1/audio/transcriptions ${keyed ? `-H "Authorization: Bearer ${key}" ` : ""}-F file=@sample.mp3 -F model=whisper-1`,
    },
  ];
}
