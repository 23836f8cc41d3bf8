"""The process that judges, and the end of it that the server holds.

It owns the examiner and nothing else: what was read is sent to it, a verdict comes back, one frame
each (a length, then msgpack) over pipes of its own. Reading, keeping and storing stay with
`practice/grading.py` in the server, which never imports torch. What is being judged is given up by
killing the process; the nurseries and stages that it has forked end with it.
"""

import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

import grader
from grader.errors import GraderError, KataError
from grader.exam.nursery import end_with_parent, remove_tree
from grader.exam.verdict import Part, Trouble, Verdict
from grader.practice.grading import Bench

_HEAD = struct.Struct("!I")
_ENDED_S = 2.0
_ROOT = str(Path(grader.__file__).parent.parent)
# Our folder comes last: where it is that of all packages, it must not hide the standard library.
_CODE = f"import sys; sys.path.append({_ROOT!r}); from grader.web import judge; judge.main()"


class Cancelled(KataError):
    """What was being judged was given up."""

    def __init__(self) -> None:
        super().__init__("Stopped: nothing was graded.")


class _Job(msgspec.Struct):
    slug: str
    source: bytes | Trouble
    name: str
    seed: int | None
    only: Part | None
    check: str | None


class _Answer(msgspec.Struct):
    """`fault` is the grader's own, where there is no verdict."""

    verdict: Verdict | None
    fault: str = ""


class Judge:
    """One process, started when it is needed or `ready` is called, started again if it died.

    All but `cancel` and `close` is called by one thread, which lives as long as the judge does: the
    process is killed by the system when the thread that started it ends.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = ""  # for its temporary files: it is killed before it can remove them
        self._lock = threading.Lock()
        self._busy = self._cancelled = self._closed = False

    def ready(self) -> None:
        """Start it unless it lives; it imports torch by itself."""
        with self._lock:
            if self._closed:
                raise Cancelled
            if self._process is not None and self._process.poll() is None:
                return
            self._end()
            self._folder = tempfile.mkdtemp(prefix="kata-")
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CODE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "TMPDIR": self._folder},
                start_new_session=True,  # Ctrl-C is for the server
            )

    def grade(
        self,
        slug: str,
        source: bytes | Trouble,
        name: str,
        *,
        seed: int | None = None,
        only: Part | None = None,
        check: str | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Verdict:
        """As `grading.Bench.judge`. Raises Cancelled if it is not `wanted` any more, or `cancel`
        was called meanwhile, GraderError if the process died."""
        self.ready()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with self._lock:
            if not wanted():
                raise Cancelled
            self._busy, self._cancelled = True, False
        reply = None
        try:
            job = msgspec.msgpack.encode(_Job(slug, source, name, seed, only, check))
            with suppress(OSError):  # it died: there is no answer
                _write(process.stdin, job)
                reply = _read(process.stdout)
        finally:
            with self._lock:
                self._busy = False
                cancelled = self._cancelled or self._closed
        if cancelled or reply is None:
            process.kill()
            process.wait()  # or `ready` would take it to live
        if reply is None:
            if not self._closed:
                self.ready()  # the next is not to wait for torch
            if cancelled:
                raise Cancelled
            raise GraderError(
                "The process that grades has died before it answered: nothing was graded.\n"
                "Another one is started: run it again."
            )
        answer = msgspec.msgpack.decode(reply, type=_Answer)
        if answer.verdict is None:
            raise GraderError(answer.fault)
        return answer.verdict

    def cancel(self) -> None:
        """Give up what is being judged, if something is."""
        with self._lock:
            if self._busy and self._process is not None:
                self._cancelled = True
                self._process.kill()

    def close(self) -> None:
        """End the process for good."""
        with self._lock:
            self._closed = True
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError, ValueError):  # of what was not sent yet
                    pipe.close()
        end = time.monotonic() + _ENDED_S  # until what it has forked has ended, too
        while os.path.lexists(self._folder) and time.monotonic() < end:
            remove_tree(self._folder)


def main() -> None:
    """Judge what comes on descriptor 0 until that ends; verdicts go to descriptor 1."""
    end_with_parent()
    with (
        os.fdopen(os.dup(0), "rb") as jobs,
        os.fdopen(os.dup(1), "wb") as answers,
        Bench() as bench,
    ):
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(2, 1)  # whatever prints here must not end up among the verdicts
        with suppress(Exception):  # it is said where it is asked to judge
            bench.ready()
        while (frame := _read(jobs)) is not None:
            answer = _answer(bench, msgspec.msgpack.decode(frame, type=_Job))
            _write(answers, msgspec.msgpack.encode(answer))


def _answer(bench: Bench, job: _Job) -> _Answer:
    try:
        verdict = bench.judge(
            job.slug, job.source, job.name, seed=job.seed, only=job.only, check=job.check
        )
    except KataError as error:
        return _Answer(None, str(error))
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return _Answer(None, f"kata itself failed. {text}")
    return _Answer(verdict)


def _write(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(_HEAD.pack(len(data)) + data)
    pipe.flush()


def _read(pipe: IO[bytes]) -> bytes | None:
    """The next frame; None where the other end has gone."""
    head = pipe.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    (size,) = _HEAD.unpack(head)
    data = pipe.read(size)
    return data if len(data) == size else None
