"""The practice in a real browser: what someone does there with keyboard and eyes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Served, until
from chromium import NARROW, WIDE, Visit, api, in_chromium, see

from grader import content
from grader.web import bundle

pytestmark = in_chromium

SLUG = "lora_linear"
NUMBER = "lora-scaling-alpha-rank"
RIGHT = content.solution(SLUG).read_text()
WRONG = RIGHT.replace("self.scale * ", "", 1)
SCALED = content.solution("ia3_linear").read_text().replace("* self.scale", "+ self.scale", 1)
AXE = Path(__file__).parent.parent / "frontend/node_modules/axe-core/axe.min.js"


def test_newcomer_solves_a_kata_from_wrong_to_right(visit: Visit, served: Served) -> None:
    page = visit.page
    page.get_by_role("link", name="Katas", exact=True).click()
    page.get_by_role("link", name=SLUG, exact=True).click()
    page.get_by_role("button", name="Start").click()
    visit.write(WRONG)
    page.keyboard.press("Control+Enter")
    see(page, "scale")
    assert served.path(SLUG).read_text() == WRONG
    visit.write(RIGHT)
    page.keyboard.press("Control+Enter")
    see(page, "passed, complete")
    assert served.path(SLUG).read_text() == RIGHT
    attempts = served.history(SLUG)["attempts"]
    assert [attempt["passed"] for attempt in attempts] == [False, True]


def test_question_with_formulas_by_the_keyboard(visit: Visit, served: Served) -> None:
    """Answer, points by their numbers, a follow-up, the suggested rating; it is in the store."""
    page = visit.page
    page.get_by_role("link", name="lora-reparameterisation").click()
    page.get_by_role("button", name="Ask it").press("Enter")
    see(page, "write down LoRA", "#prompt")
    page.keyboard.type("W x + alpha / r B A x")
    see(page, "kept", "#state")
    page.reload()  # what was typed is there, and the field is where one goes on
    page.locator("textarea:focus").wait_for()
    page.keyboard.press("Control+Enter")
    see(page, "W x + alpha / r B A x", "section:has(#said)")
    assert page.locator("#model ~ p math").count() > 5
    page.evaluate("document.fonts.ready")
    if bundle.editor():  # the font comes with it
        assert page.evaluate("document.fonts.check('16px \"STIX Two Math\"', 'α')")
    page.keyboard.press("1")
    page.keyboard.press("4")
    page.keyboard.press("f")
    see(page, "Follow-up 1", "#asked")
    page.keyboard.press("Control+Enter")
    see(page, "Answer", "#told")
    page.keyboard.press("Enter")
    see(page, "2 of 6 points", "main")
    page.keyboard.press("Enter")
    see(page, "1 hard", "main")
    reviews = json.loads(served.kata("export", "json"))["reviews"]
    rated = {review["key"]: review["rating"] for review in reviews}
    assert rated["question:lora-reparameterisation"] == "hard"


def test_a_hunt(visit: Visit, served: Served) -> None:
    """A mistake is planted, diagnosed, mended, and what was said of it is judged."""
    page = visit.go("/bugs")
    page.get_by_label("In", exact=True).select_option("ia3_linear")
    page.get_by_role("button", name="Plant a mistake").click()
    see(page, "Bug hunt", "#title")
    accessible(page)
    right = content.solution("ia3_linear").read_text()
    assert served.path("ia3_linear").exists() is False  # it is not the kata's own file
    planted = page.locator("#source").input_value()
    assert planted != right
    visit.write(right)
    page.keyboard.press("Control+Enter")  # not before the diagnosis
    assert page.evaluate("document.activeElement.id") == "diagnosis"
    page.keyboard.type("the vector does not scale the output")
    page.keyboard.press("Control+Enter")  # Enter alone does the same
    see(page, "Say it otherwise", "#work")
    page.keyboard.press("Control+Enter")
    see(page, "mended")
    page.get_by_role("link", name="What the mistake was").click()
    see(page, "The mistake", "main")
    accessible(page)
    page.get_by_role("button", name="Yes").click()
    see(page, "the next hunt on it is due", "main")
    reviews = json.loads(served.kata("export", "json"))["reviews"]
    assert [review["key"] for review in reviews if "ia3_linear" in review["key"]] == [
        "bug:ia3_linear"
    ]


def test_a_mock_with_a_killed_server(chromium: Any, tmp_path: Path) -> None:
    """Fifteen minutes at twenty times the speed: the server is killed in the coding round, and
    another one goes on with it, with all that was given."""
    clock = tmp_path / "clock"
    clock.write_text("2026-03-01T09:00:00+00:00 x20")
    served = Served(tmp_path / "sat")
    served.environment["KATA_CLOCK"] = f"@{clock}"
    with served.running():
        visit = Visit(chromium, served)
        page = visit.go("/mock")
        page.get_by_label("Minutes").fill("15")
        page.get_by_text("More to choose").click()
        page.get_by_label("Seed").fill("5")
        page.get_by_role("button", name="Make the paper").click()
        slug = page.locator("li:has-text('coding') span").inner_text().partition(",")[0]
        page.get_by_role("button", name="Begin").click()
        see(page, "1/4", "#clock")
        accessible(page)
        before = page.locator("#whole").inner_text()
        while page.locator("#work").count() == 0:
            field = page.locator("main form input:visible, main form textarea:visible:not(#reason)")
            field.first.fill("0.5")
            given(page)
        visit.write("import torch\n")
        page.keyboard.press("Control+s")
        see(page, "not passed")
        accessible(page)
        assert page.locator("#whole").inner_text() != before
        visit.write("import torch.nn\n")
        page.keyboard.press("Control+s")
        file = served.root / "home/interviews/1" / f"{slug}.py"
        until(lambda: file.read_text() == "import torch.nn\n", "it is saved")
        served.process.kill()
        visit.close(broken=True)
    with served.running():
        visit = Visit(chromium, served)
        page = visit.go("/mock")
        see(page, "unfinished", "main")
        page.get_by_role("link", name="Mock 1").click()
        see(page, "nothing that you gave is lost", "main")
        page.get_by_role("button", name="Go on").click()
        see(page, "2/4", "#clock")
        assert page.locator("#source").input_value() == "import torch.nn\n"
        visit.write(content.solution(slug).read_text())
        page.keyboard.press("Control+Enter")
        see(page, "passed, complete")
        page.get_by_role("button", name="To the next round").click()
        see(page, "3/4", "#clock")
        page.locator("main form textarea:visible:not(#reason)").fill("Both see the input.")
        page.keyboard.press("Control+Enter")
        see(page, "4/4", "#clock")
        accessible(page)
        while page.get_by_role("button", name="Go on").is_visible():
            page.keyboard.press("1")
            given(page)
        page.wait_for_url("**/report")
        see(page, "Both see the input.", "main")
        accessible(page)
        visit.close()
        assert "Interrupted, as the program was killed" in served.kata("mock", "--report", "1")
        assert served.kata("mock", "--list").count("senior") == 1


def given(page: Any) -> None:
    """Ctrl-Enter, and the turn that follows."""
    turn = page.locator("[name=turn]").first.input_value()
    page.keyboard.press("Control+Enter")
    page.wait_for_function("was => document.querySelector('[name=turn]')?.value !== was", arg=turn)
    page.wait_for_load_state()


# At the editor


@pytest.mark.parametrize("viewport", [NARROW, {"width": 1366, "height": 768}])
def test_a_verdict_and_a_conflict_come_into_sight(
    chromium: Any, served: Served, viewport: dict[str, int]
) -> None:
    """On a phone and on a small laptop: what is wrong, and what is to be decided."""
    visit = Visit(chromium, served, viewport=viewport)
    page = visit.go("/katas/ia3_linear")
    for text, told in (("def f(:\n", ".bad"), (SCALED, ".failure pre")):
        visit.write(text)
        page.keyboard.press("Control+Enter")
        api.expect(page.locator(f"#verdict {told}").first).to_be_in_viewport(ratio=0.9)
    see(page, "not passed: The scale is added, not multiplied", "#state")
    visit.write("for line in range(90_000): print(line)\n")
    page.keyboard.press("Control+Enter")
    see(page, "5000", "#verdict .printed")  # which does not push all else out of reach
    assert page.locator("#verdict .printed").bounding_box()["height"] < viewport["height"] / 2
    visit.write("mine = 1\n")
    served.path("ia3_linear").write_text("theirs = 1\n")
    api.expect(page.locator("#theirs")).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.activeElement.id") == "conflict-title"
    page.locator("#theirs").click()
    api.expect(page.locator("#source")).to_have_value("theirs = 1\n")
    visit.close()


def test_a_page_where_nothing_was_typed_follows_its_file(visit: Visit, served: Served) -> None:
    """Whoever writes in another editor is asked nothing here; who has typed here, is."""
    path = served.path("bitfit")
    path.write_text("first = 1\n")
    page = visit.go("/katas/bitfit")
    for text in ("second = 2\n", "third = 3\n"):
        path.write_text(text)
        see(page, "Read anew: it was changed elsewhere.", "#state")
        api.expect(page.locator("#source")).to_have_value(text)
    visit.write("mine = 4\n")
    path.write_text("theirs = 5\n")
    see(page, "The file was changed elsewhere.", "#state")
    assert page.locator("#source").input_value() == "mine = 4\n"
    page.get_by_role("button", name="Take theirs").click()
    api.expect(page.locator("#source")).to_have_value("theirs = 5\n")
    path.write_bytes(b"'\xff'\n")  # what can only be read is shown so, and mended is not
    see(page, "It is no UTF-8", "#work")
    path.write_text("mended = 6\n")
    api.expect(page.locator("#trouble")).to_have_count(0)
    visit.write("here = 7\n")
    page.keyboard.press("Control+s")
    until(lambda: path.read_text() == "here = 7\n", "it is saved")


def test_a_tab_of_an_earlier_server_says_what_to_do(visit: Visit) -> None:
    visit.go("/katas/galore")
    visit.context.clear_cookies()  # another server on the same port knows them not
    visit.write("typed = 1\n")
    visit.page.keyboard.press("Control+s")
    see(visit.page, "Open the address that `kata web` printed.", "#state")
    visit.said = [text for text in visit.said if " 403 " not in text]


def test_the_keyboard_leads_to_the_editor(visit: Visit) -> None:
    """From the top of a page by a link, and after a new round at once."""
    page, keys = visit.go("/katas/adapter_stack"), visit.page.keyboard
    while page.evaluate("document.activeElement.innerText") != "To the editor":
        keys.press("Tab")
    api.expect(page.get_by_role("link", name="To the editor")).to_be_in_viewport()
    keys.press("Enter")
    for again in (False, True):
        if again:
            with page.expect_navigation(url="**/adapter_stack#work"):
                page.get_by_role("button", name="Start").press("Enter")
        keys.press("Tab")
        keys.type("# typed\n")
        see(page, "not saved", "#state")
        keys.press("Control+s")  # what comes next waits for it


# What every page must be


PAGES = (
    "/",
    "/katas",
    f"/katas/{SLUG}",
    f"/katas/{SLUG}/history",
    f"/katas/{SLUG}/solution",
    "/stats",
    "/quiz",
    "/plan",
    "/bugs",
    "/mock",
)


@pytest.fixture(scope="module")
def practised(served: Served) -> Served:
    """With attempts in its history, so that pages have something to show."""
    for text in (WRONG, RIGHT, WRONG):
        served.path(SLUG).write_text(text)
        served.kata("run", SLUG)
    return served


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: npm ci in frontend/")
def test_pages_are_accessible(chromium: Any, practised: Served, scheme: str) -> None:
    """axe-core finds nothing that is serious or critical on any page, at either width."""
    found = []
    for viewport in (NARROW, WIDE):
        visit = Visit(chromium, practised, viewport=viewport, color_scheme=scheme)
        for path in PAGES:
            found += serious(visit.go(path), path)
        found += [fault for turn in turns(visit) for fault in serious(visit.page, turn)]
        visit.close()
    assert found == []


def turns(visit: Visit) -> Iterator[str]:
    """Walks through a numeric question; the name of each page of it."""
    page, keys = visit.go(f"/quiz?ask={NUMBER}"), visit.page.keyboard
    steps = (
        *(("asked", ""), ("number", "Enter"), ("wrong", "many"), ("rest", "12")),
        *(("points", "Control+Enter"), ("follow-up", "f"), ("told", "Control+Enter")),
        *(("rating", "Enter"), ("again", "t"), ("rated", "Enter"), ("sum", "Enter")),
    )
    for name, typed in steps:
        if typed.isalnum() and name in ("wrong", "rest"):
            page.get_by_role("textbox").fill(typed)
            typed = "Enter"
        if typed:
            with page.expect_navigation():
                keys.press(typed)
        page.wait_for_load_state()
        yield name
    # The console tells of every answer that is no page.
    visit.said = [text for text in visit.said if " 422 " not in text]


def accessible(page: Any) -> None:
    """axe-core, where it is there, finds nothing serious on the page as it is now."""
    assert not AXE.exists() or serious(page, page.url) == []


def serious(page: Any, name: str) -> list[tuple[Any, ...]]:
    """What axe-core finds that is serious or critical."""
    page.evaluate(AXE.read_text())  # the policy lets no page load it
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert result["passes"] or result["violations"]
    return [
        (name, page.viewport_size["width"], violation["id"], node["target"], node["failureSummary"])
        for violation in result["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_pages_fit_the_window(chromium: Any, practised: Served, width: int) -> None:
    """Nothing makes a page wider than its window; what is wide scrolls in its own place."""
    visit = Visit(chromium, practised, viewport={"width": width, "height": 800})
    for path in PAGES:
        page = visit.go(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    for turn in turns(visit):
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width, turn
    visit.close()
