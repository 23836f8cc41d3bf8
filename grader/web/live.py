"""What goes on while a page is open: its event stream, and the gradings that it asks for.

A page has a name of its own, so two tabs on one kata do not mix: each has one stream and at most
one grading, its newest. Gradings go one after another, since there is one judge.
"""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from grader.errors import KataError
from grader.exam.verdict import Trouble, Verdict
from grader.practice import grading
from grader.web import desk
from grader.web.judge import Cancelled, Judge

_MOST_STREAMS = 64
_MOST_RESULTS = 64
_LOOK_S = 1.0  # how often an open page's file is looked at
_STILL_HERE = 15  # looks without a word, after which one is said: a browser that has gone shows


Grade = Callable[[grading.Judge], dict[str, Any]]
Told = tuple[str, dict[str, Any]]  # the name of an event, and what it holds


@dataclass(frozen=True)
class _Event:
    name: str
    data: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"event: {self.name}\ndata: {msgspec.json.encode(self.data).decode()}\n\n"


_BYE = _Event("bye")


class Streams:
    """The open event streams, by page, and the last result of each page: a page that was hidden
    while it was graded learns of it when it looks again."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, asyncio.Queue[_Event]] = OrderedDict()
        self._results: OrderedDict[str, _Event] = OrderedDict()
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    def result(self, page: str, name: str, data: dict[str, Any]) -> None:
        """Tell a page what came of a grading; `data` has its number as `run`."""
        event = self._results[page] = _Event(name, data)
        self._results.move_to_end(page)
        while len(self._results) > _MOST_RESULTS:
            self._results.popitem(last=False)
        if page in self._open:
            self._open[page].put_nowait(event)

    async def follow(
        self,
        page: str,
        path: Path | None,
        seen: int,
        clock: Callable[[], dict[str, Any]] | None = None,
    ) -> AsyncIterator[str]:
        """What a page is told: `file` whenever the file at `path` is another, results later than
        the one `seen`, every second what the `clock` shows, if it has one, and `bye` when it is to
        hang up: another stream took its place."""
        if self._closed:
            return
        queue = self._enter(page)
        last = self._results.get(page)
        if last is not None and last.data["run"] > seen:
            queue.put_nowait(last)
        stamp: object = ()
        looks = 0
        try:
            while True:
                if clock is not None:
                    yield str(_Event("clock", await asyncio.to_thread(clock)))
                if path is not None and stamp != (now := _stamp(path)):
                    stamp = now
                    base = await asyncio.to_thread(desk.base, path)
                    yield str(_Event("file", {"base": base}))
                try:
                    event = await asyncio.wait_for(queue.get(), _LOOK_S)
                except TimeoutError:
                    looks += 1
                    if looks % _STILL_HERE == 0:
                        yield ": still here\n\n"
                    continue
                yield str(event)
                if event is _BYE:
                    return
        finally:
            if self._open.get(page) is queue:
                del self._open[page]

    def end(self) -> None:
        """Have all of them hang up: a server that stops waits for them."""
        self._closed = True
        for queue in self._open.values():
            queue.put_nowait(_BYE)

    def _enter(self, page: str) -> asyncio.Queue[_Event]:
        before = self._open.pop(page, None)
        while before is None and len(self._open) >= _MOST_STREAMS:
            _, oldest = self._open.popitem(last=False)
            oldest.put_nowait(_BYE)
        if before is not None:
            before.put_nowait(_BYE)
        queue: asyncio.Queue[_Event] = asyncio.Queue()
        self._open[page] = queue
        return queue


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


@dataclass
class _Run:
    page: str
    number: int
    given_up: bool = False


class Runs:
    """Gradings, one after another; a page's newer one puts an end to its older one."""

    def __init__(self, judge: Judge, streams: Streams) -> None:
        self._judge, self._streams = judge, streams
        self._numbers = itertools.count(1)
        self._turn = asyncio.Lock()
        self._newest: dict[str, _Run] = {}
        self._now: _Run | None = None
        self._tasks: set[asyncio.Task[Told]] = set()
        self._thread = ThreadPoolExecutor(1, "judge")  # the one that the judge is started by

    def warm(self) -> None:
        """Start the judge: it imports torch while the learner reads."""
        self._thread.submit(self._judge.ready)

    def ask(self, page: str, grade: Grade) -> tuple[int, asyncio.Task[Told]]:
        """Grade for a page, by a function of a judge that returns what the `verdict` event is to
        hold. The run's number, and the task that ends with what the page has been told."""
        self.stop(page)
        run = self._newest[page] = _Run(page, next(self._numbers))
        task = asyncio.create_task(self._do(run, grade))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run.number, task

    def stop(self, page: str) -> None:
        """Give up what is graded for a page, or waits to be."""
        run = self._newest.pop(page, None)
        if run is not None:
            run.given_up = True
            if run is self._now:
                self._judge.cancel()

    def stop_all(self, begin: str) -> None:
        """The same for all pages whose name begins so."""
        for page in [page for page in self._newest if page.startswith(begin)]:
            self.stop(page)

    async def close(self) -> None:
        """Give up everything, and end the judge."""
        for run in self._newest.values():
            run.given_up = True
        await asyncio.to_thread(self._judge.close)
        for task in list(self._tasks):
            await task
        self._thread.shutdown()

    async def _do(self, run: _Run, grade: Grade) -> Told:
        def judge(slug: str, source: bytes | Trouble, name: str) -> Verdict:
            return self._judge.grade(slug, source, name, wanted=lambda: not run.given_up)

        name, data = "stopped", dict[str, Any]()
        async with self._turn:
            if not run.given_up:
                self._now = run
                loop = asyncio.get_running_loop()
                try:
                    data = await loop.run_in_executor(self._thread, grade, judge)
                    name = "verdict"
                except Cancelled:
                    pass
                except KataError as error:
                    name, data = "trouble", {"text": str(error)}
                except Exception as error:
                    text = " ".join(f"{type(error).__name__}: {error}".split())
                    name, data = "trouble", {"text": f"kata itself failed. {text}"}
                finally:
                    self._now = None
        if self._newest.get(run.page) is run:
            del self._newest[run.page]
        self._streams.result(run.page, name, {**data, "run": run.number})
        return name, data
