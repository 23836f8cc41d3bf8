"""The process that grades for a notebook: one line asks, one answers, until the kernel ends.

It owns the examiner, the store and the pages; of the kernel it takes words, the current folder
and the settings (KATA_...) alone.
"""

import contextlib
import os
import socket
from typing import Any, Literal

import msgspec

from grader import catalog
from grader.cli import common, terminal
from grader.cli.hint import next_hint
from grader.cli.list import listed
from grader.cli.run import current_kata, page
from grader.errors import KataError, UsageFault
from grader.exam.nursery import end_with_parent
from grader.practice import clock, grading
from grader.practice.workspace import Workspace, put, shown
from grader.store import Store
from grader.store.attempts import Reason
from grader.views import notebook

_COLUMNS = 88
_OWN_IMPORTS = "The cell is graded as a file of its own: what it uses must be imported in it."


class Request(msgspec.Struct):
    """What the kernel asks for, and around which folder."""

    what: Literal["cell", "check", "hint", "status"]
    here: str
    settings: dict[str, str]
    slug: str | None = None
    source: str = ""


def main() -> None:
    """Serve the kernel, which holds the other end of descriptor 0."""
    end_with_parent()
    with socket.socket(fileno=os.dup(0)) as kernel, grading.Bench() as bench:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        terminal.prepare()
        os.environ["COLUMNS"] = str(_COLUMNS)
        with contextlib.suppress(Exception):  # it is said where it is asked to grade
            bench.ready()
        desk = _Desk(bench)
        with contextlib.suppress(OSError), kernel.makefile("rwb") as lines:
            for line in lines:
                lines.write(msgspec.json.encode(desk.answer(line)) + b"\n")
                lines.flush()


class _Desk:
    """Answers requests. Pages are lines, painted."""

    def __init__(self, bench: grading.Bench) -> None:
        self.bench = bench
        self.loads = False  # whether what was graded last could be loaded

    def answer(self, line: bytes) -> dict[str, Any]:
        """The page that is asked for, or the error to tell."""
        self.loads = False
        try:
            request = msgspec.json.decode(line, type=Request)
            for name in [name for name in os.environ if name.startswith("KATA_")]:
                del os.environ[name]
            os.environ.update(request.settings)
            os.chdir(request.here)
            lines = terminal.fitting(self._page(request))
        except KataError as error:
            return {"error": str(error)}
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return {"error": f"kata itself failed. {text}"}
        text, html = notebook.plain(lines), notebook.html(lines)
        return {"text": text, "html": html, "loads": self.loads}

    def _page(self, request: Request) -> list[str]:
        slug = request.slug
        match request.what:
            case "cell":
                return self.cell(slug, request.source)
            case "check":
                return self.check(slug)
            case "hint":
                return next_hint(catalog.find(slug) if slug else common.current_slug())
        return listed(None, _COLUMNS, True)

    def cell(self, slug: str | None, source: str) -> list[str]:
        """The cell becomes the kata's file, and is graded."""
        if not slug:
            raise UsageFault("Which kata? Say `%%kata SLUG`; `status()` names them.")
        if not source.strip():
            raise UsageFault("The cell is empty: nothing was written.")
        slug, space = catalog.find(slug), common.find_workspace(None)
        with Store.open(create=True) as store:
            text = source.rstrip("\n") + "\n"
            at, attempts = clock.now(), store.attempts
            put(space.path(slug), slug, text.encode(), Reason.NOTEBOOK, attempts, at)
        lines = self._grade(slug, space)
        if any("NameError: name '" in line for line in lines):
            lines[-1:-1] = [_OWN_IMPORTS]
        return lines

    def check(self, slug: str | None) -> list[str]:
        """Grade the workspace's file."""
        space = common.find_workspace(None)
        return self._grade(catalog.find(slug) if slug else current_kata(space), space)

    def _grade(self, slug: str, space: Workspace) -> list[str]:
        path = space.existing(slug)
        judge = self.bench.judge
        graded = grading.attempt(slug, path, judge, Reason.NOTEBOOK, current_in=space)
        self.loads = graded.verdict.error is None
        lines = page(graded, shown(path), False, _COLUMNS, True)
        if graded.trouble:
            lines.append(f"note: this attempt is not stored. {graded.trouble}")
        return lines
