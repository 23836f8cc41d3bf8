"""The editor of the pages, as it is used in a browser: CodeMirror, and the textarea without it."""

import os
from pathlib import Path
from typing import Any

import pytest
from browsing import Served
from chromium import PATIENCE_MS, Visit, api, in_chromium

from grader.web import bundle

pytestmark = in_chromium

SLUG = "lora_linear"

BUILT = bundle.editor() is not None
needs_bundle = pytest.mark.skipif(not BUILT, reason="needs npm when the package is installed")


class Desk:
    """A kata's page, its editor in the focus, its file as given."""

    def __init__(self, visit: Visit, source: str | bytes) -> None:
        written = source if isinstance(source, bytes) else source.encode()
        visit.served.path(SLUG).write_bytes(written)
        self.visit, self.page = visit, visit.go(f"/katas/{SLUG}")
        self.editor = self.page.get_by_role("textbox", name="Your code")
        self.editor.click()
        self.press("Control+Home")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)

    @property
    def text(self) -> str:
        """What a form of the page would send."""
        found: str = self.page.locator("#source").input_value()
        return found

    @property
    def focus(self) -> str:
        found: str = self.page.evaluate(
            "(document.activeElement.shadowRoot?.activeElement ?? document.activeElement).id"
        )
        return found

    def says(self, state: str) -> None:
        api.expect(self.page.locator("#state")).to_have_text(state, timeout=PATIENCE_MS)


def test_the_keys_of_the_editor(visit: Visit) -> None:
    """Tab indents by fours, in selections by lines; Enter keeps the depth; Control+S saves."""
    desk = Desk(visit, "x = 1\n")
    desk.type("def f(a):")
    desk.press("Enter")
    desk.type("return a")
    desk.press("Enter", "Home")
    assert desk.text.startswith("def f(a):\n    return a\n")
    desk.says("not saved")
    desk.press("Control+a", "Tab")
    assert desk.text.startswith("    def f(a):\n        return a\n")
    desk.press("Control+a", "Shift+Tab", "Control+Home", "ArrowRight", "Tab")
    assert desk.text.startswith("d   ef f(a):\n    return a\n")
    desk.press("Control+s")
    desk.says("")
    assert visit.served.path(SLUG).read_text() == desk.text


def test_the_keyboard_alone_leaves_the_editor(visit: Visit) -> None:
    """After Escape, however much later, and with something selected."""
    desk = Desk(visit, "x = 1\n")
    desk.press("Control+a", "Escape")
    desk.page.wait_for_timeout(2200)  # CodeMirror itself gives two seconds
    desk.press("Tab")
    assert desk.focus == "run"
    desk.press("Shift+Tab", "Control+End")
    desk.type("# ")
    desk.press("Escape", "ArrowRight", "Tab")
    assert desk.focus != "run"
    assert visit.served.path(SLUG).read_text() == "x = 1\n"
    assert desk.text == "x = 1\n#   "


def test_the_clipboard_and_undoing(visit: Visit) -> None:
    origin = visit.served.origin
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=origin)
    desk = Desk(visit, "one = 1\n")
    desk.press("Control+a", "Control+c", "Control+End", "Control+v")
    assert desk.text == "one = 1\none = 1\n"
    desk.press("Control+z")
    assert desk.text == "one = 1\n"
    desk.says("")
    desk.press("Control+a", "Control+x")
    assert desk.text == ""
    desk.press("Control+v")
    assert desk.text == "one = 1\n"
    assert desk.page.evaluate("navigator.clipboard.readText()") == "one = 1\n"


def test_what_was_taken_from_the_disk_can_be_undone(visit: Visit) -> None:
    """Take theirs puts their text into the editor; one's own is an undo away, and unsaved."""
    desk = Desk(visit, "mine = 1\nsame = 2\n")
    desk.type("more = 0\n")
    visit.served.path(SLUG).write_text("theirs = 1\nsame = 2\n")
    desk.page.get_by_role("button", name="Take theirs").click()
    api.expect(desk.page.locator("#conflict")).to_be_hidden()
    assert desk.text == "theirs = 1\nsame = 2\n"
    desk.says("")
    if BUILT:
        desk.press("Control+z")
        assert desk.text == "more = 0\nmine = 1\nsame = 2\n"
        desk.says("not saved")


@needs_bundle
def test_it_is_read_out_as_what_it_is(visit: Visit) -> None:
    """By name, with its keys, and as one that can be changed."""
    desk = Desk(visit, "x = 1\n")
    api.expect(desk.editor).to_have_accessible_description(desk.page.locator("#keys").inner_text())
    assert desk.editor.get_attribute("aria-multiline") == "true"
    assert desk.editor.get_attribute("aria-readonly") is None


def test_a_file_that_can_only_be_read_is_not_changed(visit: Visit) -> None:
    desk = Desk(visit, b"x = '\xe9'\n")
    before = desk.text
    desk.type("zzz")
    desk.press("Control+v", "Backspace", "Enter")
    assert desk.text == before
    desk.press("Tab")
    assert desk.focus == "run"
    assert visit.served.path(SLUG).read_bytes() == b"x = '\xe9'\n"


@needs_bundle
def test_searching(visit: Visit) -> None:
    """Found and replaced by the keyboard; Escape goes back to the text."""
    desk = Desk(visit, "alpha = 1\nbeta = alpha\n")
    desk.press("Control+f")
    desk.type("alpha")
    desk.page.get_by_role("textbox", name="Replace").fill("gamma")
    desk.page.get_by_role("button", name="replace all").click()
    assert desk.text == "gamma = 1\nbeta = gamma\n"
    desk.page.get_by_role("textbox", name="Find", exact=True).press("Escape")
    desk.type("# ")
    assert "# " in desk.text


def test_a_form_without_script_sends_the_text(visit: Visit) -> None:
    """What a page's script would take over goes by the plain form as well."""
    desk = Desk(visit, "x = 1\n")
    desk.type("y = 0\n")
    desk.page.evaluate("HTMLFormElement.prototype.submit.call(document.getElementById('edit'))")
    desk.page.wait_for_url(f"**/katas/{SLUG}#verdict")
    assert visit.served.path(SLUG).read_text() == "y = 0\nx = 1\n"


def test_without_a_bundle_there_is_a_plain_editor(
    chromium: Any,
    tmp_path: Path,
) -> None:
    """The page says so, asks for nothing that is not there, and Tab indents there, too."""
    (tmp_path / "sitecustomize.py").write_text(
        "from grader.web import bundle\nbundle.files = dict\n"
    )
    apart = Served(tmp_path)
    apart.environment["PYTHONPATH"] = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    with apart.running() as plain:
        visit = Visit(chromium, plain)
        desk = Desk(visit, "x = 1\n")
        assert desk.focus == "source"
        assert "This is the plain editor" in desk.page.locator("#work").inner_text()
        desk.press("Tab", "Control+s")
        desk.says("")
        assert plain.path(SLUG).read_text() == "    x = 1\n"
        visit.close()
