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


# What every page must be


PAGES = (
    "/",
    "/katas",
    f"/katas/{SLUG}",
    f"/katas/{SLUG}/history",
    f"/katas/{SLUG}/solution",
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
            page = visit.go(path)
            page.evaluate(AXE.read_text())  # the policy lets no page load it
            result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            assert result["passes"] or result["violations"]
            found += [
                (path, viewport["width"], violation["id"], node["target"], node["failureSummary"])
                for violation in result["violations"]
                if violation["impact"] in ("serious", "critical")
                for node in violation["nodes"]
            ]
        visit.close()
    assert found == []


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_pages_fit_the_window(chromium: Any, practised: Served, width: int) -> None:
    """Nothing makes a page wider than its window; what is wide scrolls in its own place."""
    visit = Visit(chromium, practised, viewport={"width": width, "height": 800})
    for path in PAGES:
        page = visit.go(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    visit.close()
