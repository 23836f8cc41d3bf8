// A turn of a quiz: what is typed is stored as it is typed, and keys press what they name.
"use strict";

const form = document.getElementById("turn");
const area = form.elements.text ?? form.elements.number; // none where nothing is written
const state = document.getElementById("state");
const PAUSE_MS = 400; // in typing, after which it is stored
const MOST_ALIVE = 60000; // bytes that a browser sends for a page that is left

let stored = area?.value;
let timer = 0;
let storing = Promise.resolve();
let left = false; // the quiz has gone on without this page
let failed = false; // what is typed could not be stored

async function keep() {
  clearTimeout(timer);
  await storing;
  if (!area || left) return;
  const text = area.value;
  if (text === stored) {
    failed = false;
    return;
  }
  const body = new URLSearchParams({ turn: form.elements.turn.value, [area.name]: text });
  const keepalive = body.toString().length < MOST_ALIVE;
  storing = fetch("/quiz/draft", { method: "POST", body, keepalive })
    .then(async response => {
      const said = await response.json();
      failed = !response.ok;
      if (response.ok) {
        form.elements.turn.value = said.turn;
        stored = text;
        state.textContent = area.value === text ? "kept" : "";
      } else {
        left = response.status === 409;
        state.textContent = left
          ? "The quiz has gone on elsewhere. A button leads there, with what is typed."
          : said.error;
      }
    })
    .catch(() => {
      failed = true;
      state.textContent = "Not stored: is kata web running?";
    });
  await storing;
}

area?.addEventListener("input", () => {
  if (left) return;
  state.textContent = "";
  clearTimeout(timer);
  timer = setTimeout(keep, PAUSE_MS);
});
document.addEventListener("visibilitychange", () => { if (document.hidden) keep(); });
addEventListener("beforeunload", event => { if (failed && !ready) event.preventDefault(); });

let ready = false;
form.addEventListener("submit", async event => {
  if (ready || !area) return;
  event.preventDefault(); // a draft that is on its way makes this page's turn an older one
  const { submitter } = event;
  await keep();
  if (failed && !left) return; // here the text is still to be seen
  ready = true;
  form.requestSubmit(submitter);
});

const all = document.querySelector("[data-all]");
if (all) {
  all.hidden = false;
  all.addEventListener("click", () => {
    for (const box of form.querySelectorAll("input[type=checkbox]")) box.checked = true;
  });
}

document.addEventListener("keydown", event => {
  const { target, key } = event;
  if (event.isComposing || event.altKey || event.repeat) return;
  const typing = target.matches("textarea, input:not([type=checkbox])");
  if (event.ctrlKey || event.metaKey) {
    if (key === "Enter" && area) press(event, "Submit");
  } else if (typing) {
    if (key === "Escape") {
      target.blur();
      document.getElementById("title").focus({ preventScroll: true });
    }
  } else if (key !== "Enter" || !target.matches("a, button, summary")) {
    press(event, key);
  }
});

function press(event, key) {
  const found = document.querySelector(`[data-keys~="${CSS.escape(key)}"]`);
  if (!found) return;
  event.preventDefault();
  found.click();
  if (found.type === "checkbox") found.focus();
}
