"""Grades many submissions on processes side by side, each with an examiner of its own.

torch is imported once, before they are forked. A process whose examiner breaks is ended and another
started; the submission is tried once more, then it is refused. What is hostile stays on its stage:
these processes never load a submission. A worker of a cluster (`cluster.py`) has one such process,
from a new interpreter.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from grader.errors import GraderError, KataError
from grader.exam.box import Layer, Unavailable
from grader.exam.nursery import end_with_parent
from grader.store.results import Grading, Missing, Results

if TYPE_CHECKING:
    from grader.exam.examiner import Examiner

_GRADING_S = 300.0  # of a whole grading; each check has limits of its own
_START_S = 120.0
_TICK_S = 0.2
_END_S = 10.0
_STARTS = 3  # that fail one after another

_READY, _VERDICT, _BROKEN, _UNABLE = "ready", "verdict", "broken", "unable"
_WITHOUT = "--no-sandbox grades without it, with the rights of your account: for files you trust."
_FRESH = "from grader.batch import running; running.main({}, {})"
_processes = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Task:
    """One grading to make. id: what it is called here; again: it was tried once."""

    id: int
    slug: str
    source: bytes
    seed: int
    again: bool = False


@dataclass(frozen=True)
class Done:
    """A grading made: its verdict as JSON, or, where that is None, why there is none."""

    task: Task
    verdict: str | None
    trouble: str = ""


class Graders(Protocol):
    """Who makes gradings: a `Crew` here, or a `Cluster` elsewhere."""

    boxed: bool
    layers: list[Layer]  # those of the box, once one is made

    def grade(self, tasks: Iterable[Task]) -> Iterator[Done | None]:
        """Each task's result as it comes, in any order, and None a few times a second meanwhile.

        Raises GraderError if none can be made.
        """


class _Fresh(subprocess.Popen[bytes]):
    """A process from a new interpreter, with the words of one that is forked."""

    def is_alive(self) -> bool:
        return self.poll() is None

    def join(self, timeout: float | None = None) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout)


@dataclass
class _Job:
    """One process: starting, idle, or at a task until a deadline."""

    process: ForkProcess | _Fresh
    connection: "Connection[Any, Any]"
    deadline: float
    ready: bool = False
    task: Task | None = None


def finish(results: Results, missing: Sequence[Missing], crew: Graders) -> Iterator[Missing | None]:
    """Make these gradings and store each as it comes; gives each that is made or given up, and
    None a few times a second meanwhile.

    Raises GraderError if the crew cannot work, StoreError if what it gives cannot be stored.
    """
    refused: set[int] = set()

    def tasks() -> Iterator[Task]:
        for number, one in enumerate(missing):
            source = None if one.id in refused else results.source(one.id)
            if source is not None:
                yield Task(number, one.slug, source, one.seed)

    told = set()
    for done in crew.grade(tasks()):
        if done is None:
            yield None
            continue
        one = missing[done.task.id]
        if done.verdict is None:
            refused.add(one.id)
            results.refuse(one.id, done.trouble)
        else:
            at = datetime.now(UTC)
            grading = Grading(seed=one.seed, at=at, boxed=crew.boxed, verdict=done.verdict)
            results.record(one.id, grading)
        told.add(done.task.id)
        yield one
    if crew.layers:
        results.set("layers", crew.layers)
    for number, one in enumerate(missing):  # of what was refused the other draws are given up
        if number not in told:
            yield one


@dataclass
class Crew:
    """Grades on `jobs` processes. Use it in a `with` block: none of them outlives that.

    examiner: makes the examiner of each process. A KataError that it raises ends the run.
    fresh: start each from a new interpreter, which is right where this one has threads.
    """

    jobs: int
    boxed: bool = True
    examiner: "Callable[[], Examiner] | None" = None
    fresh: bool = False
    grading_s: float = _GRADING_S
    layers: list[Layer] = field(default_factory=list)  # those of the box, once one is made
    _jobs: list[_Job] = field(default_factory=list)
    _failed: int = 0

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the processes; `grade` starts others."""
        jobs, self._jobs = self._jobs, []
        self._end(jobs)

    def ready(self) -> None:
        """Start them, and wait until one can grade. Raises GraderError if that cannot be."""
        while not any(job.ready for job in self._jobs):
            while len(self._jobs) < self.jobs:
                self._jobs.append(self._start())
            wait([job.connection for job in self._jobs], _TICK_S)
            for job in [*self._jobs]:
                self._look(job)

    def grade(self, tasks: Iterable[Task]) -> Iterator[Done | None]:
        """Each task's result as it comes, in any order, and None a few times a second meanwhile.

        Raises GraderError if the processes cannot be started.
        """
        waiting, again = iter(tasks), deque[Task]()
        left = next(waiting, None)
        while left is not None or again or any(job.task for job in self._jobs):
            while (left or again) and len(self._jobs) < self.jobs:
                self._jobs.append(self._start())
            for job in self._jobs:
                if job.ready and job.task is None and (left or again):
                    if again:
                        self._give(job, again.popleft())
                    elif left is not None:
                        self._give(job, left)
                        left = next(waiting, None)
            wait([job.connection for job in self._jobs], _TICK_S)
            yield None
            for job in [*self._jobs]:
                done = self._look(job)
                if done is None:
                    continue
                if done.verdict is None and done.trouble and not done.task.again:
                    task = done.task
                    again.append(Task(task.id, task.slug, task.source, task.seed, again=True))
                else:
                    yield done

    def _start(self) -> _Job:
        ours, theirs = _processes.Pipe()
        process: ForkProcess | _Fresh
        if self.fresh:
            process = _Fresh(
                [sys.executable, "-P", "-c", _FRESH.format(theirs.fileno(), self.boxed)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        else:
            import grader.exam.examiner  # noqa: F401 – and torch, once for all

            make = self.examiner or partial(_examiner, self.boxed)
            process = _processes.Process(target=_serve, args=(theirs, make), daemon=True)
            process.start()
        theirs.close()
        return _Job(process, ours, time.monotonic() + _START_S)

    def _give(self, job: _Job, task: Task) -> None:
        job.task, job.deadline = task, time.monotonic() + self.grading_s
        with contextlib.suppress(OSError):  # if it has died, `_look` sees that
            job.connection.send(task)

    def _look(self, job: _Job) -> Done | None:
        """What has become of a job since; one that is of no use any more is ended."""
        kind, text = None, ""
        try:
            if job.connection.poll():
                kind, text = job.connection.recv()
            elif not job.process.is_alive():
                raise EOFError
        except (EOFError, OSError):
            kind, text = _BROKEN, "The process that grades was killed."
        idle = job.ready and job.task is None
        if kind is None and (idle or time.monotonic() < job.deadline):
            return None
        task, job.task = job.task, None
        if kind == _READY:
            job.ready, self._failed = True, 0
            self.layers = msgspec.json.decode(text, type=list[Layer])
            return None
        if kind == _VERDICT and task is not None:
            return Done(task, text)
        self._jobs.remove(job)
        self._end([job], at_once=kind is None)
        if kind == _UNABLE:
            raise GraderError(text)
        if task is None:
            self._failed += not job.ready
            if self._failed >= _STARTS:
                raise GraderError(f"The processes that grade cannot be started. {text}")
            return None
        if kind is None:  # once is enough: it would take as long again
            task = Task(task.id, task.slug, task.source, task.seed, again=True)
            text = f"No verdict came within {self.grading_s:.0f} s."
        return Done(task, None, text)

    def _end(self, jobs: list[_Job], at_once: bool = False) -> None:
        """End processes with all that they have started."""
        for job in jobs:
            job.process.kill() if at_once else job.process.terminate()
        for job in jobs:
            job.process.join(_END_S)
            if job.process.is_alive():
                job.process.kill()
                job.process.join()
            job.connection.close()


def _examiner(boxed: bool) -> "Examiner":
    from grader.exam.examiner import Examiner

    return Examiner(boxed=boxed)


def main(descriptor: int, boxed: bool) -> None:
    """The life of a fresh process, whose end of the pipe is this descriptor."""
    _serve(Connection(descriptor), partial(_examiner, boxed))


def _serve(connection: "Connection[Any, Any]", make: "Callable[[], Examiner]") -> None:
    """The life of a process that grades. Ctrl-C is for the first of us, who ends all."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    # Neither the results nor the others' pipes are for us, or for what we start.
    os.closerange(3, connection.fileno())
    os.closerange(connection.fileno() + 1, 1 << 16)
    try:
        with make() as examiner:
            layers = msgspec.json.encode(getattr(examiner.nursery(), "layers", []))
            connection.send((_READY, layers.decode()))
            while True:
                task: Task = connection.recv()
                connection.send(_graded(examiner, task))
    except Unavailable as error:
        connection.send((_UNABLE, f"{error}\n{_WITHOUT}"))
    except KataError as error:
        connection.send((_UNABLE, str(error)))
    except (EOFError, BrokenPipeError):  # the first of us has gone
        return


def _graded(examiner: "Examiner", task: Task) -> tuple[str, str]:
    try:
        verdict = examiner.grade(task.slug, task.source, f"{task.slug}.py", task.seed)
    except KataError as error:
        return _BROKEN, str(error)
    except Exception as error:  # ours: one submission must not end the run
        return _BROKEN, " ".join(f"{type(error).__name__}: {error}".split())
    return _VERDICT, verdict.as_json().decode()


def _leave(*_: object) -> None:
    raise SystemExit
