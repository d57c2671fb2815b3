// What every page does once it is there: follows its stream, says how old it is, holds still, takes keys.
import { follow } from "./stream.js";
import { keys } from "./keys.js";
import { choose } from "./select.js";

document.documentElement.classList.add("js");

const theme = document.querySelector("form.theme select");
theme?.addEventListener("change", () => {
  document.documentElement.dataset.theme = theme.value;
  const form = theme.form;
  fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)), redirect: "manual" });
});

for (const form of document.querySelectorAll("form[data-auto]")) {
  form.addEventListener("change", () => form.requestSubmit());
}

choose();
const stream = follow();
keys(stream);
