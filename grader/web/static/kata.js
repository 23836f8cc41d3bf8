// The editor of a page: Run, the file as it changes elsewhere, and what the server tells.
"use strict";

const work = document.getElementById("work");
const area = document.getElementById("source");
const { at, page } = work.dataset; // the page's address, and its own name
const fixed = "onlyRead" in work.dataset; // the file can only be read here
const part = id => document.getElementById(id);
const say = text => { part("state").textContent = text; };

let base = work.dataset.base; // names the bytes that the text goes out from
let saved = area.value; // the text as it stands in the file
let waiting = 0; // the run whose verdict is waited for, 0 without one
let seen = 0; // the last run that was told of
let stream = null;
let leaving = false;
let saving = null; // the last save, until it is answered

// The editor is the textarea, or what is put over it, which keeps the textarea's text its own
const editor = typeof codemirror === "undefined"
  ? { set: text => { area.value = text; }, focus: () => area.focus() }
  : codemirror.mount(area);

const changed = () => !fixed && area.value !== saved;

// What is asked of the server

async function ask(what, wanted) {
  const response = await fetch(`${at}/${what}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ page, base, ...wanted }),
  });
  const ours = response.headers.get("content-type") === "application/json";
  const said = ours ? await response.json() : { error: (await response.text()).trim() };
  if (response.status === 409 && "base" in said) {
    conflict(said);
    return null;
  }
  if (!response.ok) throw new Error(said.error);
  return said;
}

async function trying(step) {
  try {
    return await step();
  } catch (error) {
    say(error instanceof TypeError ? "The server does not answer: is kata web running?" : error.message);
    waits(0);
    return null;
  }
}

async function save(what = "save") {
  const text = fixed ? null : area.value;
  const asked = ask(what, { text });
  const answered = asked.catch(() => null).finally(() => { if (saving === answered) saving = null; });
  saving = answered;
  const said = await asked;
  if (said === null) {
    waits(0);
    return null;
  }
  base = said.base;
  if (text !== null) saved = text;
  part("conflict").hidden = true;
  if ("run" in said) { // it is graded
    waits(said.run);
    say("grading …");
    if (early !== null) told(early.name, early.data);
  } else marked();
  return said;
}

function run() {
  const first = work.dataset.first && part(work.dataset.first); // what is to be said before
  if (first) {
    if (first.value.trim()) return part("say").click();
    first.focus();
    return say("First say what is wrong.");
  }
  waits(0); // the older one is given up
  say("grading …");
  listen();
  return trying(() => save("run"));
}

function waits(number) {
  waiting = number;
  part("stop").hidden = number === 0;
}

function marked() {
  if (waiting === 0) say(changed() ? "not saved" : "");
}

// A file that was changed elsewhere

let theirs = null; // the base of what stands there

function conflict(there) {
  theirs = there.base;
  part("difference").innerHTML = there.html;
  const was = part("conflict").hidden;
  part("conflict").hidden = false;
  say("The file was changed elsewhere.");
  if (!was) return;
  part("conflict").scrollIntoView({ block: "nearest" });
  part("conflict-title").focus({ preventScroll: true });
}

async function look(there) {
  await saving; // what it wrote is not someone else's
  if (there === base || there === theirs) return;
  if (there !== "" && !changed() && part("conflict").hidden) { // nothing is lost
    await trying(() => take(null, "Read anew: it was changed elsewhere."));
    return;
  }
  const said = await trying(() => ask("compare", { text: area.value }));
  if (said !== null && said.base !== base) conflict(said);
}

part("mine").addEventListener("click", () => {
  base = theirs;
  theirs = null;
  trying(() => save());
});

async function take(text, why = "") { // `text` is to be kept
  const mine = area.value;
  const said = await ask("take", { text });
  if (area.value !== mine) return look(said.base); // typed meanwhile
  if (said.trouble || fixed) {
    leaving = true;
    location.reload();
    return;
  }
  saved = said.text;
  editor.set(saved);
  base = said.base;
  theirs = null;
  part("conflict").hidden = true;
  marked();
  if (waiting === 0 && why) say(why);
}

part("theirs").addEventListener("click", () => trying(async () => {
  await take(fixed ? null : area.value);
  editor.focus();
}));

// The event stream, while the page is looked at

let early = null; // a verdict that came before the answer that names its run

function listen() {
  if (stream !== null || document.hidden) return;
  stream = new EventSource(`${at}/events?page=${page}&seen=${seen}`);
  stream.addEventListener("file", event => { look(JSON.parse(event.data).base); });
  for (const name of ["verdict", "trouble", "stopped"]) {
    stream.addEventListener(name, event => told(name, JSON.parse(event.data)));
  }
  stream.addEventListener("bye", hush);
  document.dispatchEvent(new CustomEvent("stream", { detail: stream }));
}

function hush() {
  stream?.close();
  stream = null;
}

function told(name, data) {
  if (data.run > waiting) { // its number is on the way, or it is of no interest here
    early = { name, data };
    return;
  }
  early = null;
  seen = Math.max(seen, data.run);
  if (data.run !== waiting) return;
  waits(0);
  if (name === "verdict") {
    part("verdict").innerHTML = data.html;
    const [conclusion, mistake] = ["h3", ".failure b"].map(what => part("verdict").querySelector(what)?.innerText);
    say(mistake ? `${conclusion}: ${mistake}` : conclusion); // this alone is read out
    const first = [".failure pre", ".bad", "h3"].map(what => part("verdict").querySelector(what)).find(Boolean);
    first?.scrollIntoView({ block: "nearest" });
  } else {
    say(name === "trouble" ? data.text : "Stopped: nothing was graded.");
  }
}

document.addEventListener("visibilitychange", () => { document.hidden ? hush() : listen(); });

// The editor: Tab indents, Escape lets the next Tab leave

function put(text) { // so that it can be undone
  if (!document.execCommand("insertText", false, text)) {
    area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
    area.dispatchEvent(new Event("input"));
  }
}

function shift(back) { // the selected lines, by four columns
  const text = area.value;
  const begin = text.lastIndexOf("\n", area.selectionStart - 1) + 1;
  let end = area.selectionEnd;
  if (end > begin && text[end - 1] === "\n") end -= 1;
  const next = text.indexOf("\n", end);
  const stop = next < 0 ? text.length : next;
  const lines = text.slice(begin, stop).split("\n");
  const moved = lines.map(line => back ? line.replace(/^( {1,4}|\t)/, "") : line && `    ${line}`).join("\n");
  area.setSelectionRange(begin, stop);
  if (moved !== lines.join("\n")) put(moved);
  area.setSelectionRange(begin, begin + moved.length);
}

let freed = false;
area.addEventListener("keydown", event => {
  const free = freed;
  freed = event.key === "Escape" || (free && event.key === "Shift");
  if (fixed || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const { selectionStart: from, selectionEnd: to, value } = area;
  if (event.key === "Tab" && !free) {
    event.preventDefault();
    if (event.shiftKey || value.slice(from, to).includes("\n")) shift(event.shiftKey);
    else put(" ".repeat(4 - (from - value.lastIndexOf("\n", from - 1) - 1) % 4));
  } else if (event.key === "Enter") {
    const line = value.slice(value.lastIndexOf("\n", from - 1) + 1, from);
    const deeper = /:\s*(#.*)?$/.test(line) ? "    " : "";
    event.preventDefault();
    put(`\n${line.match(/^[ \t]*/)[0]}${deeper}`);
  } else if (event.key === "Backspace" && from === to) {
    const line = value.slice(value.lastIndexOf("\n", from - 1) + 1, from);
    if (line && !line.trim() && line.length % 4 === 0 && !line.includes("\t")) {
      event.preventDefault();
      area.setSelectionRange(from - 4, from);
      document.execCommand("delete");
    }
  }
});
area.addEventListener("input", marked);

document.addEventListener("keydown", event => {
  if (!event.ctrlKey && !event.metaKey) return;
  if (event.key === "Enter") {
    event.preventDefault();
    run();
  } else if (event.key === "s" && !fixed) {
    event.preventDefault();
    trying(() => save());
  }
});

part("edit").addEventListener("submit", event => {
  if ("leaves" in (event.submitter?.dataset ?? {})) { // it takes the text with it
    if (saving !== null) { // which goes out from what that writes
      event.preventDefault();
      saving.then(() => event.submitter.click());
      return;
    }
    leaving = true;
    if (!fixed) event.target.elements.base.value = base;
    return;
  }
  event.preventDefault();
  if (event.submitter?.id === "save") trying(() => save());
  else run();
});
part("stop").addEventListener("click", () => trying(() => ask("stop", {})));

part("diagnosis")?.addEventListener("keydown", event => { // it is one line
  if (event.key !== "Enter" || event.isComposing || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  part("say")?.click();
});

addEventListener("beforeunload", event => { if (changed() && !leaving) event.preventDefault(); });

saved = area.value;
listen();
