// Information about the server over HTTP: its model, its readiness, and why it refused a stream.

async function ask(path, key) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  try {
    const response = await fetch(path, { headers, cache: "no-store" });
    const body = await response.json().catch(() => ({}));
    return { status: response.status, body };
  } catch {
    return { status: 0, body: {} };
  }
}

/** Returns the response of `/health`, or null without one. */
export async function health() {
  const { status, body } = await ask("/health");
  return status === 200 ? body : null;
}

/** Whether the server accepts this key or requires none. */
export async function keyAccepted(key) {
  const { status } = await ask("/v1/models", key);
  return status !== 401 && status !== 403;
}

/** Returns why a stream was refused as `{code, message}`; a browser does not expose the response to the handshake. */
export async function whyRefused(key) {
  const state = await health();
  if (state === null) return refusal("unreachable", "The server does not respond. Check that it is running.");
  if (!(await keyAccepted(key))) return refusal("unauthorized", "This server requires an API key.");
  const ready = await ask("/ready");
  if (ready.body.reason === "full" || state.active >= state.capacity) {
    return refusal("full", fullMessage(state.capacity));
  }
  if (ready.status !== 200) {
    return refusal("restarting", `The server is not ready (${ready.body.reason}). Try again in a moment.`);
  }
  return refusal("unknown", "The server refused the stream. Try again in a moment.");
}

function refusal(code, message) {
  return { code, message };
}

function fullMessage(capacity) {
  const all = capacity === 1 ? "its only stream is" : `all ${capacity} streams are`;
  return `The server is full: ${all} in use. Try again later.`;
}
