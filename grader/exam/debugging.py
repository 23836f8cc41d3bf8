"""One check made again in this terminal: the submission prints, stops and asks as it likes.

It decides nothing. The check runs in this process; the submission runs in a child that was
forked before any suite was here, on this terminal, without limits of time or memory.
"""

import io
import os
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import torch

from grader import content
from grader.exam import nursery, protocol, stage, suite, wire
from grader.exam.channel import Allowance, StageDied
from grader.exam.examiner import Run
from grader.exam.verdict import Check, Kind, Trouble


class Left(BaseException):
    """The learner has left the debugger. No check may take it for an error."""


@dataclass(frozen=True)
class Call:
    """One probe's call as it went to the submission: the probe's name, the source it stands in
    with all its helpers, the values that source names, its arguments, and the seed."""

    seed: int
    name: str
    source: str
    values: dict[str, Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    helpers: dict[str, str]


@dataclass(frozen=True)
class Debugged:
    """How the check ended, or the trouble that kept it from being made; its last call, with the
    evidence that came of it; and the values that differed, where values were compared."""

    check: Check | None
    trouble: Trouble | None
    call: Call | None
    evidence: Any
    got: Any
    want: Any


class Debugger:
    """Makes checks again. Enter it early: the child is forked here, before any suite is here."""

    def __init__(self) -> None:
        self.sock, theirs = socket.socketpair()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.sock.close()
                _be_a_stage(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def __enter__(self) -> "Debugger":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        os.waitpid(self.pid, 0)

    def accelerator(self) -> str:
        device = torch.accelerator.current_accelerator(check_available=True)
        return "" if device is None else str(device.type)

    def debug(
        self, slug: str, source: bytes | Trouble, filename: str, check: str, seed: int
    ) -> Debugged:
        """Make the check of this name on the inputs of `seed`. Raises Left, KeyboardInterrupt."""
        run = _Run(self, slug, source, filename, seed)
        found = suite.collect(content.suite(slug))
        run.run([one for one in found if one.__name__ == f"test_{check}"])
        line = run.line
        compared = run.failed.compared if run.failed else None
        return Debugged(
            run.checks[0] if run.checks else None,
            run.error,
            line.call,
            line.evidence,
            compared.got if compared else None,
            compared.want if compared else None,
        )


class _Run(Run):
    """A run whose stage is the child on this terminal."""

    def __init__(self, debugger: Debugger, *args: Any) -> None:
        examiner: Any = debugger  # of an examiner it is asked for the accelerator alone
        super().__init__(examiner, *args)
        self.line = _Line(debugger.sock)

    def start(self, limited: bool = True) -> None:
        if self.line.over:
            raise StageDied(Kind.CRASH, "The submission has ended its process.")
        self._loaded = False
        self._channel: Any = self.line


class _Line:
    """What a run asks of a stage's channel: nothing is limited, and nothing captured."""

    kept, printed = b"", 0

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.requests = 0
        self.over = False
        self.told: list[dict[str, Any]] = []
        self.call: Call | None = None
        self.evidence: Any = None

    def ask(self, request: dict[str, Any], allowance: Allowance) -> protocol.Reply:
        self.send(request)
        return self.answer(allowance)

    def send(self, request: dict[str, Any]) -> None:
        self.requests += 1
        self.told += request["tell"]
        if (probe := request.get("probe")) is not None:
            told, given = self.told[probe["told"]], {k: probe[k] for k in probe if k != "told"}
            source, values = told["source"].decode(), told["values"]
            self.call = Call(request["seed"], source=source, values=values, **given)
            self.evidence = None
        self.sock.sendall(wire.encode({"id": self.requests, **request}))

    def answer(self, _: Allowance) -> protocol.Reply:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the submission's
        try:
            reply = protocol.reply(wire.receive(self.sock))
        except (EOFError, OSError) as error:
            self.over = True
            raise StageDied(Kind.CRASH, "The submission has ended its process.") from error
        except (wire.WireError, protocol.Malformed) as error:
            raise StageDied(Kind.CRASH, "The submission's process sent no answer.") from error
        finally:
            signal.signal(signal.SIGINT, before)
        if reply.raised is not None:
            if "builtins.KeyboardInterrupt" in reply.raised.types:
                raise KeyboardInterrupt
            if stage.QUIT in reply.raised.types:
                raise Left
        self.evidence = reply.evidence
        return reply

    def forget_output(self) -> None:
        pass

    def close(self) -> None:
        pass


def _be_a_stage(sock: socket.socket) -> None:
    nursery.end_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    raw = open(1, "wb", 0, closefd=False)  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)
    stage.limit(None)
    stage.serve(sock, _Loud)


class _Loud(stage.Stage):
    """A stage that shows every exception whole, from the probe's call on."""

    def _story(self, error: BaseException) -> str:
        at = error.__traceback__
        while at is not None and at.tb_frame.f_code.co_filename not in (
            stage.PROBE_FILE,
            self.filename,
        ):
            at = at.tb_next
        if not stage.is_quit(error):
            traceback.print_exception(type(error), error, at)
        return super()._story(error)
