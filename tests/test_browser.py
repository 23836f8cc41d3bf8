"""The practice in a real browser: what someone does there with keyboard and eyes."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Served

from grader import content

api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("uvicorn")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("browser"),  # one browser, one server
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)"),
]

SWITCHES = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
PATIENCE_MS = 60_000
SLUG = "lora_linear"
QUESTION, NUMBER = "lora-reparameterisation", "lora-scaling-alpha-rank"
RIGHT = content.solution(SLUG).read_text()
WRONG = RIGHT.replace("self.scale * ", "", 1)
AXE = Path(__file__).parent.parent / "frontend/node_modules/axe-core/axe.min.js"
NARROW, WIDE = {"width": 360, "height": 740}, {"width": 1600, "height": 900}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("browser")).running() as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


class Visit:
    """A browser window that has let itself in. What its console says, and where it asks, is held
    against it when it is closed."""

    def __init__(self, chromium: Any, served: Served, **options: Any) -> None:
        self.served = served
        self.context = chromium.new_context(**{"viewport": WIDE, **options})
        self.context.set_default_timeout(PATIENCE_MS)
        self.said: list[str] = []
        self.asked: set[str] = set()
        self.context.on("console", lambda message: self.said.append(message.text))
        self.context.on("weberror", lambda error: self.said.append(str(error.error)))
        self.context.on("request", lambda request: self.asked.add(request.url))
        self.page = self.context.new_page()
        self.page.goto(served.address)
        self.page.wait_for_url(f"{served.origin}/")

    def close(self) -> None:
        self.context.close()
        assert self.said == []
        assert [url for url in self.asked if not url.startswith(self.served.origin)] == []

    def go(self, path: str) -> Any:
        assert self.page.goto(self.served.origin + path).status == 200
        return self.page

    def write(self, text: str) -> None:
        """Put this into the editor by the keyboard, in place of all that is there."""
        self.page.wait_for_load_state()  # the script has put the editor over the textarea
        self.page.get_by_role("textbox", name="Your code").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.press("Delete")
        self.page.keyboard.insert_text(text)


@pytest.fixture
def visit(chromium: Any, served: Served) -> Iterator[Visit]:
    visit = Visit(chromium, served)
    yield visit
    visit.close()


def see(page: Any, text: str, place: str = "#verdict") -> None:
    api.expect(page.locator(place)).to_contain_text(text, timeout=PATIENCE_MS)


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


def test_a_question_is_answered_by_the_keyboard(visit: Visit, served: Served) -> None:
    """From the link of the day to its rating; what is typed is kept through a reload."""
    page, keys = visit.page, visit.page.keyboard
    link = page.get_by_role("link", name=QUESTION, exact=True)
    link.focus()
    keys.press("Enter")
    page.wait_for_url("**/quiz?ask=*")
    keys.press("Enter")
    page.wait_for_url("**/quiz")
    assert page.locator("#prompt").inner_text()
    assert "Model answer" not in page.locator("main").inner_text()
    keys.insert_text("W and BA, 1 q n")
    see(page, "kept", "#state")
    page.reload()
    field = page.get_by_role("textbox", name="Your answer")
    api.expect(field).to_have_value("W and BA, 1 q n")
    api.expect(field).to_be_focused()
    keys.press("End")
    keys.insert_text(" more")
    keys.press("Control+Enter")
    see(page, "W and BA, 1 q n more", "pre.said")
    assert page.locator("#points math").count() > 0
    keys.press("1")
    keys.press("3")
    keys.press("1")
    assert page.get_by_role("checkbox", checked=True).count() == 1
    keys.press("f")
    see(page, "Follow-up 1", "#asked")
    keys.insert_text("because")
    keys.press("Control+Enter")
    see(page, "because", "#told")
    assert page.get_by_role("checkbox", checked=True).count() == 1
    keys.press("Enter")
    see(page, "1 of ", "#turn")
    keys.press("g")
    see(page, "1 good", "main")
    assert f"Taken back: good for {QUESTION}" in served.kata("quiz", "--undo")


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


# What every page must be


PAGES = (
    "/",
    "/katas",
    f"/katas/{SLUG}",
    f"/katas/{SLUG}/history",
    f"/katas/{SLUG}/solution",
    "/quiz",
    "/plan",
    "/stats",
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
