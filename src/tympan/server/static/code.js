// The sheet "Use it from code": one example at a time.

import { at } from "./panel.js";
import { fetchCommand, snippets } from "./snippets.js";
import { t } from "./texts/index.js";
import { copy } from "./transcript/export.js";

const COPIED_MILLISECONDS = 1500;
const GUIDES = { clients: "clients.md", files: "files.md", models: "models.md", operation: "operations/README.md" };

/** Copy `text`, and say so on the button. */
export async function copyFrom(button, text) {
  await copy(text, button.closest("dialog") ?? document.body);
  button.textContent = t("copied");
  setTimeout(() => (button.textContent = t("copy")), COPIED_MILLISECONDS);
}

/** Connect the sheet's controls; `keyed` returns whether the server requires a key. */
export function prepareCode(server, keyed) {
  let examples = [];
  let pages = null; // of the documentation that the server has

  async function open() {
    examples = snippets(server.url, keyed());
    at("code-fetch").textContent = fetchCommand(server.url);
    at("code-key").hidden = !keyed();
    at("code-tabs").replaceChildren(...examples.map(({ name }, i) => tab(name, i)));
    choose(0);
    at("code").showModal();
    pages ??= await server.documentation();
    showDocs(examples.find((_, i) => at(`code-tab-${i}`).ariaSelected === "true"));
  }

  function showDocs({ name, docs }) {
    const offered = Object.entries({ [name]: docs, ...GUIDES }).filter(([, path]) => pages?.includes(path));
    document.querySelector(".docs").hidden = offered.length === 0;
    at("code-docs").replaceChildren(...offered.map(([label, path]) => link(label, path)));
  }

  function tab(name, i) {
    const button = document.createElement("button");
    button.type = "button";
    button.id = `code-tab-${i}`;
    button.className = "tool";
    button.textContent = name;
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", "code-panel");
    button.addEventListener("click", () => choose(i));
    button.addEventListener("keydown", (event) => onKey(event, i));
    return button;
  }

  function onKey(event, i) {
    const last = examples.length - 1;
    const to = {
      ArrowRight: i === last ? 0 : i + 1,
      ArrowLeft: i === 0 ? last : i - 1,
      Home: 0,
      End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to);
    at(`code-tab-${to}`).focus();
  }

  function choose(chosen) {
    [...at("code-tabs").children].forEach((button, i) => {
      button.setAttribute("aria-selected", String(i === chosen));
      button.tabIndex = i === chosen ? 0 : -1;
    });
    at("code-panel").setAttribute("aria-labelledby", `code-tab-${chosen}`);
    at("code-text").textContent = examples[chosen].text;
    showDocs(examples[chosen]);
  }

  at("code-open").addEventListener("click", open);
  at("code-close").addEventListener("click", () => at("code").close());
  at("code-copy").addEventListener("click", () => copyFrom(at("code-copy"), at("code-text").textContent));
}

function link(label, path) {
  const element = document.createElement("a");
  element.className = "link";
  element.href = `guide/${path}`;
  element.target = "_blank";
  element.textContent = label;
  return element;
}
