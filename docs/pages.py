"""The README's pictures of `kata web`, taken of its real pages in Chromium.

    python docs/pages.py

Needs the extras `[web]` and `[dev]`, and Chromium (Debian's package chromium). The server runs with
a data folder and a workspace that are thrown away.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from screens import HERE, MISTAKE

from grader import content

SIZE: Any = {"width": 1280, "height": 800}
SEED = "7"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server whose files lie in this folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KATA_")}
    homes = {"KATA_HOME": str(folder / "home"), "KATA_WORKSPACE": str(folder / "katas")}
    command = [sys.executable, "-m", "grader", "web", "--no-browser"]
    process = subprocess.Popen(
        command, cwd=folder, env=kept | homes, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def kata(page: Page, origin: str, file: Path) -> None:
    """A kata, its editor, and a verdict that names the mistake and shows where it differs."""
    right = content.solution("lora_linear").read_text(encoding="utf-8")
    wrong = right.replace(*MISTAKE)
    assert wrong != right
    file.write_text(wrong, encoding="utf-8")
    page.goto(f"{origin}/katas/lora_linear")
    page.keyboard.press("Control+Enter")
    page.locator("#verdict .failure").first.wait_for()
    page.locator("#verdict").scroll_into_view_if_needed()
    page.locator(".work").evaluate("work => work.scrollTo(0, 400)")


def quiz(page: Page, origin: str) -> None:
    """An answer beside the model's, and the points to tick."""
    page.goto(f"{origin}/quiz?ask=lora-reparameterisation")
    page.get_by_role("button", name="Ask it").click()
    page.locator("#text").fill(
        "h = W x + (alpha / r) B A x. W is frozen, A (r, d_in) starts random and B (d_out, r)\n"
        "at zero, so nothing changes before the first step. A x first, then B."
    )
    page.wait_for_load_state()  # the script that knows the keys
    page.keyboard.press("Control+Enter")
    page.locator("#points").wait_for()
    for point in "145":
        page.keyboard.press(point)


def mock(page: Page, origin: str) -> None:
    """The coding round of an interview, its clock running."""
    page.goto(f"{origin}/mock")
    page.get_by_label("Minutes").fill("45")
    page.get_by_text("More to choose").click()
    page.get_by_label("Seed").fill(SEED)
    page.get_by_role("button", name="Make the paper").click()
    page.get_by_role("button", name="Begin").click()
    while page.locator("#clock").get_attribute("data-round") == "1":
        page.get_by_role("button", name="Skip it").click()
        page.wait_for_load_state()
    page.locator(".work").wait_for()


def main() -> None:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        (folder / "katas").mkdir()
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        with served(folder) as address:
            origin = address.partition("/enter")[0]
            page = browser.new_page(viewport=SIZE)
            page.goto(address)
            page.wait_for_url(f"{origin}/")
            for make, arguments in (
                (kata, (folder / "katas" / "lora_linear.py",)),
                (quiz, ()),
                (mock, ()),
            ):
                make(page, origin, *arguments)
                page.evaluate("document.fonts.ready")
                page.screenshot(path=HERE / f"page_{make.__name__}.png")
        browser.close()


if __name__ == "__main__":
    main()
