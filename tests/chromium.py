"""What tests in a real browser share: Chromium, a server, and a window that watches its console."""

import shutil
from typing import Any

import pytest

pytest.importorskip("uvicorn")
api = pytest.importorskip("playwright.sync_api")

from browsing import Served  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
SWITCHES = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
PATIENCE_MS = 60_000
NARROW, WIDE = {"width": 360, "height": 740}, {"width": 1600, "height": 900}

in_chromium = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)"),
]


class Visit:
    """A browser window that has let itself in. What its console says, and where it asks, is held
    against it when it is closed."""

    def __init__(self, chromium: Any, served: Served, **options: Any) -> None:
        self.served = served
        self.context = chromium.new_context(**{"viewport": WIDE, **options})
        self.context.set_default_timeout(PATIENCE_MS)
        self.said: list[str] = []
        self.asked: set[str] = set()
        self.context.on("console", self._heard)
        self.context.on("weberror", lambda error: self.said.append(str(error.error)))
        self.context.on("request", lambda request: self.asked.add(request.url))
        self.page = self.context.new_page()
        self.page.goto(served.address)
        self.page.wait_for_url(f"{served.origin}/")

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):  # not that a field was in focus already
            self.said.append(message.text)

    def close(self, broken: bool = False) -> None:
        """`broken`: the server was killed, and the console says that it does not answer."""
        self.context.close()
        said = [text for text in self.said if not (broken and "net::ERR_" in text)]
        assert said == [], said
        strange = [url for url in self.asked if not url.startswith(self.served.origin)]
        assert strange == [], strange

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


def see(page: Any, text: str, place: str = "#verdict") -> None:
    """The place comes to hold this text, and the page's scripts to listen."""
    api.expect(page.locator(place)).to_contain_text(text, timeout=PATIENCE_MS)
    page.wait_for_load_state()
