// A bare `ws` client: it ends with `close()`, without a code, as browsers do, and reports how that went.
import WebSocket from "ws";
import { chunks, input, print } from "./common.mjs";

const results = {};
for (const path of input.paths) {
  const socket = new WebSocket(input.ws + path, {
    headers: {
      Authorization: `${path.includes("/listen") ? "Token" : "Bearer"} ${input.key}`,
      "kyutai-api-key": input.key,
    },
  });
  results[path] = await new Promise((resolve) => {
    const errors = [];
    socket.on("error", (error) => errors.push(error.message));
    socket.on("close", (code) => resolve({ code, errors }));
    socket.on("open", () => {
      if (path.startsWith("/v1/listen")) {
        socket.send([...chunks(80)][0]);
      }
      socket.close();
    });
  });
}
print(results);
