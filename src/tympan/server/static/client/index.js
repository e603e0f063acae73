// Tympan's client for browsers and Node: live speech to text that survives lost connections and restarts.

export { Capture } from "./capture.js";
export { Microphone, MicrophoneError } from "./microphone.js";
export { Recording } from "./recording.js";
export { Server } from "./server.js";
export { Session, SessionError } from "./session.js";
export { LiveSource } from "./source.js";
export { Transcript } from "./transcript.js";
