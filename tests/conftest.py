"""Every test has a data folder of its own, and runs the real `kata` in a child process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import grader.exam.examiner  # noqa: F401 – before torch, whose import it times

if TYPE_CHECKING:
    from browsing import Served
    from chromium import Visit

Kata = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens", action="store_true", help="write tests/golden and formulas.txt anew"
    )


def run_kata(
    arguments: Sequence[str], work: Path, environment: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    """`kata` with these arguments, started in the folder `work`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "grader", *arguments],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables under which `kata` keeps everything in this test's folder."""
    (tmp_path / "work").mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KATA_", "NO_COLOR"))}
    folders = {"KATA_HOME": str(tmp_path / "home"), "KATA_WORKSPACE": str(tmp_path / "work")}
    return {**kept, **folders, "COLUMNS": "100", "TERM": "xterm"}


@pytest.fixture
def kata(tmp_path: Path, environment: dict[str, str]) -> Kata:
    """Runs `kata` with these arguments, in an empty folder with its own workspace."""

    def run(*arguments: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        return run_kata(arguments, tmp_path / "work", {**environment, **extra})

    return run


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Served"]:
    """`kata web`, one server for all tests of a file."""
    from browsing import Served

    with Served(tmp_path_factory.mktemp("web")).running() as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A real browser."""
    from chromium import CHROMIUM, SWITCHES, api

    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any, served: "Served") -> Iterator["Visit"]:
    """A window of it that has let itself in."""
    from chromium import Visit

    visit = Visit(chromium, served)
    yield visit
    visit.close()
