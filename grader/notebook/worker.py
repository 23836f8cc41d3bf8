"""The kernel's end of the process that grades: started early, asked, started again.

Only what was taken by name here, before a cell could change it, is used to start and to ask it.
"""

from contextlib import suppress
from json import dumps, loads
from os import (
    O_WRONLY,
    POSIX_SPAWN_DUP2,
    POSIX_SPAWN_OPEN,
    WNOHANG,
    devnull,
    environ,
    getcwd,
    kill,
    path,
    posix_spawn,
    register_at_fork,
    waitpid,
)
from signal import SIGKILL
from socket import socketpair
from sys import executable
from threading import Lock
from typing import Any, BinaryIO

_ROOT = path.dirname(path.dirname(path.dirname(path.abspath(__file__))))
# Our folder comes last: where it is that of all packages, it must not hide the standard library.
_CODE = f"import sys; sys.path.append({_ROOT!r}); from grader.notebook import serve; serve.main()"
_ENVIRONMENT = dict(environ)
_DIED = (
    "The process that grades has died before it answered; `kata history` tells what is stored.\n"
    "Call it again: another one is started."
)


class Fault(Exception):
    """Something to tell the learner in a line or two; it stops `Run All`."""

    def _render_traceback_(self) -> list[str]:
        return [f"error: {self}"]


class Interrupted(KeyboardInterrupt):
    """The learner did not want to wait."""

    def _render_traceback_(self) -> list[str]:
        return ["Interrupted: nothing was graded."]


class Worker:
    """One process that answers, for as long as the kernel lives."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pid = 0
        self._file: BinaryIO | None = None
        register_at_fork(after_in_child=self._forget)  # or it would outlive the kernel

    def start(self) -> None:
        """Start it unless it lives. It loads torch, while the learner writes."""
        if self._file is not None:
            if self._lives():
                return
            self.end()
        ours, theirs = socketpair()
        with theirs:
            quiet = [(POSIX_SPAWN_OPEN, number, devnull, O_WRONLY, 0) for number in (1, 2)]
            self._pid = posix_spawn(
                executable,
                [executable, "-P", "-c", _CODE],
                _ENVIRONMENT,
                file_actions=[(POSIX_SPAWN_DUP2, theirs.fileno(), 0), *quiet],
                setpgroup=0,  # an interrupt is for the kernel
            )
        with ours:
            self._file = ours.makefile("rwb")  # type: ignore[assignment]

    def ask(self, what: str, **words: str | None) -> dict[str, Any]:
        """Its answer. Raises Fault with what it says, or that it died; and Interrupted, which
        ends it: what was being graded is given up."""
        try:
            here = getcwd()
        except OSError:
            text = "The current folder does not exist any more; `%cd` to one that does."
            raise Fault(text) from None
        settings = {name: value for name, value in environ.items() if name.startswith("KATA_")}
        request = {"what": what, **words, "here": here, "settings": settings}
        with self._lock:
            try:
                self.start()
                assert self._file is not None
                self._file.write(dumps(request).encode() + b"\n")
                self._file.flush()
                line = self._file.readline()
            except KeyboardInterrupt:
                self.end()
                raise Interrupted from None
            except OSError:
                line = b""
            if not line.endswith(b"\n"):
                self.end()
                raise Fault(_DIED)
        reply: dict[str, Any] = loads(line)
        if "error" in reply:
            raise Fault(reply["error"])
        return reply

    def end(self) -> None:
        """Kill it; what it has started ends with it."""
        pid, self._pid = self._pid, 0
        if pid:
            with suppress(ProcessLookupError, ChildProcessError):
                kill(pid, SIGKILL)
                waitpid(pid, 0)
        self._forget()

    def _lives(self) -> bool:
        try:
            return bool(self._pid) and waitpid(self._pid, WNOHANG)[0] == 0
        except ChildProcessError:  # somebody else waited for it
            return False

    def _forget(self) -> None:
        self._pid = 0
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # of what was not sent yet
                file.close()
