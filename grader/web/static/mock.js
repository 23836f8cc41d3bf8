// A round of a mock interview: its clock, drafts, keys, and news of what happens elsewhere. A module,
// since kata.js has names of its own.

const clock = document.getElementById("clock");
const { at: mock, page: mine, turn, round } = clock.dataset;
const $ = id => document.getElementById(id);
const writes = $("answer") ? $("text") : null; // the field of an answer
let graded = Number(clock.dataset.graded);
let draft = writes?.value;

// The clock is the server's, every second

function told(now) {
  if (now.turn !== turn) return elsewhere();
  $("left").textContent = now.left;
  $("left").classList.toggle("bad", now.late);
  $("whole").textContent = now.whole;
  if ($("said").textContent !== now.said) $("said").textContent = now.said; // it is read out
  if (now.graded !== graded && $("stop")?.hidden) look(now.graded);
}

function elsewhere() { // another page, a pause, the end
  const typed = writes && writes.value !== writes.defaultValue;
  if (typed || $("source")) $("gone").hidden = false;
  else location.replace(mock);
}

async function look(number) { // it was graded for another page, or saved in another editor
  graded = number;
  const response = await fetch(`${mock}/${round}/last`);
  if (response.ok) $("verdict").innerHTML = (await response.json()).html;
}

function follow(stream) {
  stream.addEventListener("clock", event => told(JSON.parse(event.data)));
  stream.addEventListener("verdict", event => { graded = JSON.parse(event.data).graded; });
  stream.addEventListener("error", () => { $("left").textContent = "no answer: is kata web running?"; });
}

if ($("work")) {
  document.addEventListener("stream", event => follow(event.detail)); // the editor's
} else {
  let stream = null;
  const listen = () => {
    if (stream !== null || document.hidden) return;
    stream = new EventSource(`${mock}/events?page=${mine}`);
    follow(stream);
    stream.addEventListener("bye", hush);
  };
  const hush = () => {
    stream?.close();
    stream = null;
  };
  document.addEventListener("visibilitychange", () => { document.hidden ? hush() : listen(); });
  listen();
}

// What stands in the field is kept at every pause in typing

let pause = 0;

async function keep() {
  const text = writes.value;
  if (text === draft || writes.name !== "text") return;
  const response = await fetch(`${mock}/draft`, { method: "POST", body: new URLSearchParams({ turn, text }) });
  if (response.ok) draft = text;
}

writes?.addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(() => keep().catch(() => {}), 700);
});

// Keys

document.addEventListener("keydown", event => {
  const form = $("answer") ?? $("debrief");
  if (!form || event.altKey || event.isComposing) return;
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
    event.preventDefault();
    form.requestSubmit(form.querySelector("button.first"));
  } else if (!event.ctrlKey && !event.metaKey && !event.target.matches("textarea, input:not([type=checkbox])")) {
    const points = [...form.querySelectorAll("input[type=checkbox]")];
    const button = form.querySelector(`button[data-key="${CSS.escape(event.key)}"]`);
    if (button) button.click();
    else if (event.key === "a" && points.length) points.forEach(point => { point.checked = true; });
    else points[event.key - 1]?.click();
  }
});

$("reason").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.isComposing) return;
  event.preventDefault();
  $("pause").click();
});

// A form is sent once

for (const form of document.forms) {
  form.addEventListener("submit", event => {
    if (form.id === "edit" || event.defaultPrevented) return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
}
addEventListener("pageshow", () => { for (const form of document.forms) delete form.dataset.sent; });
