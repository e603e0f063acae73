// Requests to the server over HTTP: its model, whether it is ready, why it refused a stream. Their addresses are
// relative to the page, which a proxy may serve under a prefix.

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

/** Return the response of `/health`, or null if the server is unreachable. */
export async function health() {
  const { status, body } = await ask("health");
  return status === 200 ? body : null;
}

/** Return whether the server accepts this key, or needs none. */
export async function keyAccepted(key) {
  const { status } = await ask("v1/models", key);
  return status !== 401 && status !== 403;
}

/** Return why a stream was refused, `{code, message}`; browsers hide the response to a failed WebSocket. */
export async function whyRefused(key) {
  const state = await health();
  if (state === null) return refusal("unreachable", "The server does not respond. Check that it is running.");
  if (!(await keyAccepted(key))) return refusal("unauthorized", "This server requires an API key.");
  const ready = await ask("ready");
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
