"""What tests of `kata web` share: the server in a process of its own, and a page that is open."""

import asyncio
import contextlib
import html
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from conftest import run_kata
from html_page import Page

from grader.practice.workspace import Workspace
from grader.web.app import Web

SLUG = "ia3_linear"
PATIENCE_S = 60.0


class Served:
    """`kata web` in a folder and a home of its own."""

    def __init__(self, root: Path) -> None:
        self.work, self.root = root / "wo<i>rk", root
        self.work.mkdir(parents=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KATA_", "NO_COLOR"))}
        mine = {"KATA_HOME": str(root / "home"), "KATA_WORKSPACE": str(self.work)}
        self.temporary = root / "tmp"
        self.temporary.mkdir()
        self.environment = {**kept, **mine, "COLUMNS": "100", "TMPDIR": str(self.temporary)}

    @contextlib.contextmanager
    def running(self, *options: str) -> Iterator["Served"]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "grader", "web", "--no-browser", *options],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        try:
            line = self.process.stdout.readline()
            assert line == "Open in a browser; Ctrl-C ends it:\n"
            self.address = self.process.stdout.readline().strip()
            assert self.address.startswith("http://127.0.0.1:")
            self.origin = self.address.partition("/enter")[0]
            self.port = int(self.origin.rpartition(":")[2])
            self.client = httpx.Client(
                base_url=self.origin, headers={"origin": self.origin}, timeout=PATIENCE_S
            )
            with self.client:
                assert self.client.get(self.address).status_code == 200
                yield self
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def kata(self, *arguments: str) -> str:
        """What `kata` says in a terminal beside it."""
        done = run_kata(arguments, self.work, self.environment)
        return done.stdout + done.stderr

    def history(self, slug: str = SLUG) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kata("history", slug, "--json"))
        return found

    def path(self, slug: str = SLUG) -> Path:
        return self.work / f"{slug}.py"

    def tab(self, slug: str = SLUG) -> "Tab":
        return Tab(self, f"/katas/{slug}")

    def children(self) -> list[int]:
        return children(self.process.pid)


class Tab:
    """A page with an editor at an address, open in a browser: what its script does."""

    def __init__(self, served: Served, at: str) -> None:
        self.served, self.at = served, at
        answer = served.client.get(at)
        assert answer.status_code == 200
        self.html: str = answer.text
        self.page = self._data("page")
        self.base = self._data("base")
        found = re.search(r"<textarea id=\"source\"[^>]*>\n(.*?)</textarea>", self.html, re.DOTALL)
        assert found is not None
        self.text = html.unescape(found[1])

    def _data(self, name: str) -> str:
        found = re.search(rf'data-{name}="(\w*)"', self.html)
        assert found is not None
        return found[1]

    def post(self, what: str, **asked: Any) -> Any:
        asked = {"page": self.page, "base": self.base, **asked}
        return self.served.client.post(f"{self.at}/{what}", json=asked)

    def save(self, text: str) -> Any:
        """A save, after which the tab goes out from what it wrote."""
        answer = self.post("save", text=text)
        if answer.status_code in (200, 202):
            self.base = answer.json()["base"]
        return answer

    def begin(self, text: str | None) -> int:
        """Run; the number of the run."""
        answer = self.post("run", text=text)
        assert answer.status_code == 202, answer.text
        self.base = answer.json()["base"]
        return int(answer.json()["run"])

    @contextlib.contextmanager
    def events(self, seen: int = 0) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
        address = f"{self.at}/events?page={self.page}&seen={seen}"
        with self.served.client.stream("GET", address) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield self._events(answer.iter_lines())

    @staticmethod
    def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        name = ""
        for line in lines:
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                yield name, json.loads(line[6:])

    def result(self, number: int) -> tuple[str, dict[str, Any]]:
        """What the page is told of a run."""
        with self.events(seen=number - 1) as events:
            return next((n, d) for n, d in events if d.get("run") == number)

    def run(self, text: str | None) -> tuple[str, dict[str, Any]]:
        return self.result(self.begin(text))


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]


def all_below(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *all_below(child))]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def until(true: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def text_of(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


ORIGIN = "http://127.0.0.1:8000"


class Inside:
    """The application in this process, where nothing grades, as one browser sees it; it keeps its
    data where KATA_HOME says. Redirects are not followed."""

    def __init__(self, work: Path) -> None:
        self._app = Web(Workspace(work, "from a test"), 8000, "token").app
        self._cookies = httpx.Cookies()
        assert self.get("/enter?token=token").status_code == 200

    def get(self, address: str, **asked: Any) -> httpx.Response:
        return asyncio.run(self._ask("GET", address, asked))

    def post(self, address: str, **asked: Any) -> httpx.Response:
        asked["headers"] = {"origin": ORIGIN, **asked.get("headers", {})}
        return asyncio.run(self._ask("POST", address, asked))

    async def _ask(self, method: str, address: str, asked: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(
            transport=transport, base_url=ORIGIN, cookies=self._cookies
        ) as client:
            answer = await client.request(method, address, **asked)
            self._cookies = client.cookies
        return answer


def sound(page: Page, *scripts: str) -> None:
    """Well-formed, nothing in it that the policy forbids, landmarks, a name for every field."""
    assert page.open == []
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert {"header", "nav", "main"} <= page.names
    assert not page.names & {"style", "iframe", "img"}
    assert [a.get("src") for tag, a in page.tags if tag == "script"] == list(scripts)
    named = {name for _, attributes in page.tags for name in attributes}
    assert not [name for name in named if name == "style" or name.startswith("on")]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            for id in (attributes.get(name) or "").split():
                assert id in ids, (tag, attributes)
    labels = {attributes.get("for") for tag, attributes in page.tags if tag == "label"}
    for tag, attributes in page.tags:
        if tag in ("textarea", "select") or attributes.get("type") in ("text", "number", "date"):
            assert attributes["id"] in labels, attributes
