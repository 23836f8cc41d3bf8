// CodeMirror over a textarea, which keeps the text: what reads or sends the textarea need not know.
// It stands in a shadow root, whose style sheets the pages' policy allows.
import {
  defaultKeymap, history, historyKeymap, indentLess, indentMore, isolateHistory, simplifySelection,
} from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import { bracketMatching, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { search, searchKeymap } from "@codemirror/search";
import { EditorSelection, EditorState } from "@codemirror/state";
import {
  drawSelection, EditorView, highlightActiveLine, highlightActiveLineGutter, highlightSpecialChars, keymap, lineNumbers,
} from "@codemirror/view";
import { classHighlighter } from "@lezer/highlight";

const INDENT = 4;
const ANY_TIME_MS = 1e9;

// The colours are the page's variables, so that they follow it from light to dark.
const looks = EditorView.theme({
  "&": { height: "100%", color: "var(--ink)", backgroundColor: "var(--card)" },
  "&.cm-focused": { outline: "none" }, // the page marks the whole
  ".cm-scroller": { font: "inherit", overflow: "auto" },
  ".cm-content": { caretColor: "var(--ink)" },
  ".cm-cursor": { borderLeft: "2px solid var(--ink)" },
  ".cm-gutters": { color: "var(--soft)", backgroundColor: "var(--card)", borderRight: "1px solid var(--line)" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--code-line)" },
  "& .cm-selectionBackground, &.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground": {
    backgroundColor: "var(--code-selection)",
  },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "transparent", outline: "1px solid var(--bar)" },
  "&.cm-focused .cm-nonmatchingBracket": { backgroundColor: "transparent", outline: "1px solid var(--bad)" },
  ".cm-searchMatch": { backgroundColor: "var(--code-match)" },
  ".cm-searchMatch-selected": { backgroundColor: "var(--code-match)", outline: "2px solid var(--bar)" },
  ".cm-specialChar": { color: "var(--bad)" },
  ".cm-panels": { color: "var(--ink)", backgroundColor: "var(--paper)", font: ".88rem system-ui, sans-serif" },
  ".cm-panels-top": { borderBottom: "1px solid var(--line)" },
  ".cm-textfield, .cm-button, .cm-panel.cm-search [name=close]": {
    font: "inherit", color: "var(--ink)", background: "var(--card)", border: "1px solid var(--soft)", borderRadius: "4px",
  },
  ".cm-panel.cm-search": { paddingRight: "2.5rem" },
  ".cm-panel.cm-search [name=close]": { top: ".4rem", right: ".4rem", padding: "0 .4rem" },
  ".cm-panel.cm-search label": { font: "inherit" },
  ".tok-keyword": { color: "var(--code-keyword)" },
  ".tok-string, .tok-string2": { color: "var(--code-string)" },
  ".tok-number, .tok-bool, .tok-atom": { color: "var(--code-number)" },
  ".tok-comment": { color: "var(--soft)", fontStyle: "italic" },
  ".tok-definition, .tok-className, .tok-meta": { color: "var(--code-name)" },
});

function tab(view) {
  if (view.state.readOnly) return false;
  const { main } = view.state.selection;
  if (!main.empty) return indentMore(view);
  const column = main.head - view.state.doc.lineAt(main.head).from;
  view.dispatch(view.state.replaceSelection(" ".repeat(INDENT - column % INDENT)), { userEvent: "input" });
  return true;
}

function letTabLeave(view) { // until another key
  simplifySelection(view);
  view.setTabFocusMode(ANY_TIME_MS);
  return true;
}

const keys = keymap.of([
  { key: "Tab", run: tab, shift: indentLess },
  ...searchKeymap,
  { key: "Escape", run: letTabLeave },
  ...historyKeymap,
  ...defaultKeymap.filter(({ key }) => key !== "Mod-Enter"), // which runs the kata
]);

// The name and the description of the textarea, for whom the editor is read out to: what is meant
// by an id has to stand in the same root.
function named(area, root) {
  const about = { "aria-label": area.labels[0]?.textContent ?? "", tabindex: "0" };
  const told = document.getElementById(area.getAttribute("aria-describedby"));
  if (told !== null) {
    const copy = root.appendChild(document.createElement("div"));
    copy.id = "about";
    copy.hidden = true;
    copy.textContent = told.textContent;
    about["aria-describedby"] = copy.id;
  }
  return EditorView.contentAttributes.of(about);
}

/** Puts an editor in the place of a textarea. Whatever is typed comes to the textarea with an
 *  `input` event. Returns `set`, which replaces the text so that it can be undone, and `focus`. */
export function mount(area) {
  const host = document.createElement("div");
  host.className = "editor";
  const root = host.attachShadow({ mode: "open" });
  const begin = EditorSelection.range(area.selectionStart, area.selectionEnd);
  const view = new EditorView({
    root,
    state: EditorState.create({
      doc: area.value,
      extensions: [
        lineNumbers(), history(), drawSelection(), highlightActiveLine(), highlightActiveLineGutter(),
        highlightSpecialChars(), bracketMatching(), indentOnInput(), search({ top: true }), keys,
        EditorState.tabSize.of(INDENT), indentUnit.of(" ".repeat(INDENT)), EditorState.readOnly.of(area.readOnly),
        python(), syntaxHighlighting(classHighlighter), looks, named(area, root),
        EditorView.updateListener.of(update => {
          if (!update.docChanged) return;
          area.value = update.state.doc.toString();
          area.dispatchEvent(new Event("input"));
        }),
      ],
    }),
  });
  root.append(view.dom);
  const hadFocus = document.activeElement === area;
  area.before(host);
  area.hidden = true;
  const focus = () => view.focus();
  if (hadFocus) {
    view.dispatch({ selection: begin, scrollIntoView: true });
    focus();
  }
  return { set: text => replace(view, text), focus };
}

// Only what differs, so that the cursor keeps its place.
function replace(view, text) {
  const was = view.state.doc.toString();
  const most = Math.min(was.length, text.length);
  let from = 0;
  while (from < most && was[from] === text[from]) from += 1;
  let same = 0;
  while (same < most - from && was.at(-1 - same) === text.at(-1 - same)) same += 1;
  view.dispatch({
    changes: { from, to: was.length - same, insert: text.slice(from, text.length - same) },
    annotations: isolateHistory.of("full"),
  });
}
