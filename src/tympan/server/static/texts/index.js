// The page's texts in the browser's language: English or French.

import en from "./en.js";
import fr from "./fr.js";

const preferred = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase());

export const language = preferred.find((tag) => tag === "en" || tag === "fr") ?? "en";

const texts = language === "fr" ? { ...en, ...fr } : en;

/** Return a text with its values. */
export function t(name, values = {}) {
  return texts[name].replace(/\{(\w+)\}/g, (_, value) => String(values[value]));
}

/** Return the text for an English sentence of the server or the client, by its code. */
export function translated(kind, code, sentence) {
  return (language === "fr" && fr[`${kind}.${code}`]) || sentence;
}

/** Return a number of seconds with one digit after the decimal mark. */
export function seconds(value) {
  return `${value.toLocaleString(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 })} s`;
}

/** Put the texts into the elements that name them. */
export function translatePage() {
  document.documentElement.lang = language;
  document.querySelector('meta[name="description"]').content = t("description");
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel));
  }
  for (const element of document.querySelectorAll("[data-t-title]")) element.title = t(element.dataset.tTitle);
}
