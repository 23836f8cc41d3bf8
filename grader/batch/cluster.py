"""Grades on the workers of a Dask cluster instead of on processes here.

Each worker keeps a plugin for the run (`Seat`), which keeps one process that grades: that is
started from a new interpreter, before any submission is seen and apart from the worker's threads,
and owns the examiner and its boxed nursery. A task carries a source, a seed and the `basis` of its
kata (`records.basis`); what comes back is what a process here would have said.

Dask gives tasks to workers, and to another when one dies. What we add: which workers may take part
(those whose box holds, and whose suites are the same as here), and what to do when all that may
have a task are gone, or when one never answers. Each task has one result, whatever comes back.
"""

import asyncio
import logging
import queue
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from threading import Thread, Timer
from typing import Any, Self, cast

import msgspec
from distributed import Client, Future, Security, Worker, WorkerPlugin, get_worker
from distributed.comm.core import connect
from distributed.scheduler import KilledWorker

from grader.batch import records
from grader.batch.running import Crew, Done, Task
from grader.errors import GraderError, KataError, UsageFault
from grader.exam.box import Layer

_TICK_S = 0.2
_LOOK_S = 0.5  # between two looks at who is there
_CONNECT_S = 5.0
_START_S = 180.0  # for a first worker to be ready, or another one once all are gone
_GRACE_S = 20.0  # for another worker to come, where those that are there are of no use
_PATIENCE_S = 900.0  # with a task: each grading has its own limit, which is shorter
_IDLE_S = 600.0  # a process that grades, on a worker that nobody asks any more
_SHOWN = 5  # workers, in one message
_AHEAD = 2  # tasks for each worker, so that none waits for the network

_OTHER = "Its suites, or its version of kata, are not those of the machine that asks."
_RESUME = "What was graded is stored; --resume goes on."


class Answer(msgspec.Struct, frozen=True):
    """What a worker says to a task; `unfit`: why that worker cannot do any."""

    worker: str
    verdict: str | None = None
    trouble: str = ""
    unfit: str = ""


class Seat(WorkerPlugin):
    """What a worker holds for one run: the process that grades, and one thread that speaks to it.

    The worker tells the run, as an event of the topic `name`, whether it is ready or why not.
    """

    def __init__(self, name: str, boxed: bool, bases: dict[str, str]) -> None:
        self.name, self.boxed, self.bases = name, boxed, bases

    def setup(self, worker: Worker) -> None:
        """Begin to start it; the worker need not wait for that."""
        self._worker = worker
        # The process ends with the thread that starts it, so that one starts it, too.
        self._thread = ThreadPoolExecutor(1, self.name)
        self._crew = Crew(1, self.boxed, fresh=True)
        self._idle: Timer | None = None
        self._thread.submit(self._begin)

    def teardown(self, worker: Worker) -> None:
        self._stay(None)
        self._thread.submit(self._crew.end)
        self._thread.shutdown(wait=False)

    def grade(self, task: Task, basis: str) -> Answer:
        """Make one grading. What comes at the same time, waits."""
        return self._thread.submit(self._grade, task, basis).result()

    def _begin(self) -> None:
        said: dict[str, Any] = {"worker": self._worker.address}
        try:
            for slug, basis in self.bases.items():
                _compare(slug, basis)
            self._crew.ready()
            said["layers"] = msgspec.to_builtins(self._crew.layers)
        except KataError as error:
            said["unfit"] = str(error).splitlines()[0]
        except Exception as error:
            said["unfit"] = " ".join(f"{type(error).__name__}: {error}".split())
        self._worker.loop.add_callback(self._worker.log_event, self.name, said)

    def _grade(self, task: Task, basis: str) -> Answer:
        here = self._worker.address
        self._stay(None)
        try:
            _compare(task.slug, basis)  # it may have been updated meanwhile
            for done in self._crew.grade([task]):
                if done is not None:
                    return Answer(here, done.verdict, done.trouble)
            raise GraderError("It gave no verdict.")
        except KataError as error:
            return Answer(here, unfit=str(error).splitlines()[0])
        finally:
            self._stay(_IDLE_S)

    def _stay(self, seconds: float | None) -> None:
        """Let the process go after so long: the run that asked may have been killed."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = None
        if seconds is not None:
            self._idle = Timer(seconds, self._thread.submit, [self._crew.end])
            self._idle.daemon = True
            self._idle.start()


def _compare(slug: str, basis: str) -> None:
    """Raises GraderError if the kata is not judged here as it is where the task comes from."""
    records.basis.cache_clear()
    try:
        same = records.basis(slug) == basis
    except OSError:  # it has no such kata
        same = False
    if not same:
        raise GraderError(_OTHER)


def _grade(name: str, task: Task, basis: str) -> Answer:
    """The task as Dask runs it on a worker."""
    seat = cast(Seat, get_worker().plugins[name])
    return seat.grade(task, basis)


@dataclass
class _Given:
    """A task that Dask has: who may do it, and how long we wait."""

    task: Task
    future: "Future[Answer]"
    workers: frozenset[str]
    deadline: float


@dataclass
class Cluster:
    """Grades on a cluster. Use it in a `with` block: nothing of the run stays there after that.

    address: of the scheduler, as tcp://host:8786. slugs: the katas of the run, by which workers
    are compared. `refused`: the workers that take no part, and why. Raises UsageFault, when
    entered, if no scheduler answers.
    """

    address: str
    slugs: Iterable[str]
    boxed: bool = True
    grace_s: float = _GRACE_S
    patience_s: float = _PATIENCE_S
    refused: dict[str, str] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    _fit: frozenset[str] = frozenset()  # those that may take part, as far as they live
    _seen_s: float = 0.0  # when we looked
    _lacking_s: float = 0.0  # since when there is none
    _heard: int = 0  # events that we know
    _ready: set[str] = field(default_factory=set)
    _given: dict[str, _Given] = field(default_factory=dict)  # by Dask's name for it
    _ended: "queue.SimpleQueue[str]" = field(default_factory=queue.SimpleQueue)
    _again: deque[tuple[Task, str]] = field(default_factory=deque)  # and who is not to have it
    _number: int = 0

    def __enter__(self) -> Self:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters we say
        self._name = f"kata-grade-{secrets.token_hex(6)}"
        bases = {slug: records.basis(slug) for slug in self.slugs}
        try:
            asyncio.run(_reach(self.address))  # a client that cannot connect is a noisy one
            self._client = Client(self.address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise UsageFault(
                f"No Dask scheduler answers at {self.address}. "
                "Start one with `dask scheduler`; it says its address."
            ) from error
        # Workers without kata cannot take it; they are missed in `_look`.
        seat = Seat(self._name, self.boxed, bases)
        _briefly(lambda: self._client.register_plugin(seat, name=self._name))
        self._lacking_s = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        given = [one.future for one in self._given.values()]
        _briefly(lambda: self._client.cancel(given, force=True))
        _briefly(lambda: self._client.unregister_worker_plugin(self._name))
        _briefly(lambda: self._client.close(timeout=_CONNECT_S))

    def grade(self, tasks: Iterable[Task]) -> Iterator[Done | None]:
        """See `Graders`."""
        waiting = iter(tasks)
        left = next(waiting, None)
        while left is not None or self._again or self._given:
            self._look()
            while (left or self._again) and len(self._given) < _AHEAD * len(self._fit):
                if self._again:
                    self._give(*self._again.popleft())
                elif left is not None:
                    self._give(left)
                    left = next(waiting, None)
            yield None
            for one in self._ended_ones():
                done = self._settled(one)
                if done is not None:
                    yield done
            for one in self._overdue():
                done = self._tried(one, "", f"No worker answered within {self.patience_s:.0f} s.")
                if done is not None:
                    yield done

    def _give(self, task: Task, elsewhere: str = "") -> None:
        """Have a task done by a worker that is fit; another than this one, if there is one."""
        workers = (self._fit - {elsewhere}) or self._fit
        self._number += 1
        key = f"{self._name}-{self._number}"
        future = self._client.submit(
            _grade,
            self._name,
            task,
            records.basis(task.slug),
            key=key,
            workers=sorted(workers),
            pure=False,
        )
        deadline = time.monotonic() + self.patience_s
        self._given[key] = _Given(task, future, workers, deadline)
        future.add_done_callback(lambda _: self._ended.put(key))

    def _ended_ones(self) -> Iterator[_Given]:
        """What Dask has ended with, within a moment."""
        with suppress(queue.Empty):
            key = self._ended.get(timeout=_TICK_S)
            while True:
                if key in self._given:  # else we do not wait for it any more
                    yield self._given.pop(key)
                key = self._ended.get_nowait()

    def _settled(self, one: _Given) -> Done | None:
        """A result, or None if the task is to be given out again."""
        if one.future.status == "finished":
            answer = one.future.result()
            if answer.verdict is not None:
                return Done(one.task, answer.verdict)
            if not answer.unfit:
                return self._tried(one, answer.worker, answer.trouble)
            self._refuse(answer.worker, answer.unfit)
        elif one.future.status == "error":
            error = one.future.exception()
            if isinstance(error, KilledWorker):
                return self._tried(one, "", "The workers that graded it died, one after another.")
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return self._tried(one, "", text)
        self._again.append((one.task, ""))  # it says nothing about the task
        return None

    def _tried(self, one: _Given, worker: str, trouble: str) -> Done | None:
        """A task that has brought no verdict is tried once more, elsewhere."""
        if one.task.again:
            return Done(one.task, None, trouble)
        self._again.append((replace(one.task, again=True), worker))
        return None

    def _overdue(self) -> Iterator[_Given]:
        """What was waited for too long. Where it is, nothing more is asked."""
        late = [key for key, one in self._given.items() if time.monotonic() > one.deadline]
        if not late:
            return
        with _spoken_to(self.address):
            held = self._client.processing()
        for key in late:
            for worker, keys in held.items():
                if key in keys:
                    self._refuse(worker, f"It did not answer within {self.patience_s:.0f} s.")
            yield self._take_back(key)

    def _take_back(self, key: str) -> _Given:
        one = self._given.pop(key)
        with suppress(Exception):
            one.future.cancel(force=True)
        return one

    def _look(self) -> None:
        """See who is there and fit, and give out anew what only those had that are gone."""
        now = time.monotonic()
        if now < self._seen_s + _LOOK_S:
            return
        self._seen_s = now
        with _spoken_to(self.address):
            if self._client.status != "running":
                raise OSError
            there = set(self._client.nthreads())
            events = self._client.get_events(self._name)
        for _, said in events[self._heard :]:
            if "unfit" in said:
                self._refuse(said["worker"], said["unfit"])
            else:
                self._ready.add(said["worker"])
                self._merge(msgspec.convert(said["layers"], list[Layer]))
        self._heard = len(events)
        self._fit = frozenset((there & self._ready) - self.refused.keys())
        useless = bool(there) and there <= self.refused.keys()
        if self._fit:
            self._lacking_s = now
        elif now > self._lacking_s + (self.grace_s if useless else _START_S):
            for worker in there - self.refused.keys():
                self._refuse(worker, "It does not answer: is kata installed there?")
            raise GraderError(self._nobody(there))
        for key, one in [*self._given.items()]:
            if self._fit and not one.workers & there:
                self._again.append((self._take_back(key).task, ""))

    def _merge(self, layers: list[Layer]) -> None:
        """A layer holds if it does on every worker."""
        known = {layer.name: layer for layer in self.layers}
        for layer in layers:
            if known.get(layer.name, layer).holds:
                known[layer.name] = layer
        self.layers = [*known.values()]

    def _refuse(self, worker: str, why: str) -> None:
        self.refused.setdefault(worker, why)
        self._fit -= {worker}

    def _nobody(self, there: set[str]) -> str:
        if not there:
            return f"The scheduler at {self.address} has no worker. {_RESUME}"
        reasons = [f"{worker}: {self.refused[worker]}" for worker in sorted(there)[:_SHOWN]]
        more = [f"and {len(there) - _SHOWN} more"] if len(there) > _SHOWN else []
        return "\n".join(["No worker of the cluster can grade.", *reasons, *more, _RESUME])


async def _reach(address: str) -> None:
    """Raises OSError or ValueError if nothing answers there."""
    words = Security().get_connection_args("client")
    comm = await connect(address, timeout=_CONNECT_S, **words)
    comm.abort()


def _briefly(ask: Callable[[], Any]) -> None:
    """Ask something of all workers; some may hang, or be gone, and we do not wait for those."""

    def asked() -> None:
        with suppress(Exception):
            ask()

    thread = Thread(target=asked, daemon=True)
    thread.start()
    thread.join(_CONNECT_S)


@contextmanager
def _spoken_to(address: str) -> Iterator[None]:
    """Raises GraderError if the scheduler is gone."""
    try:
        yield
    except (OSError, TimeoutError) as error:
        text = f"The scheduler at {address} does not answer any more. {_RESUME}"
        raise GraderError(text) from error
