"""One stage as the examiner sees it: send a request, wait within limits, read the answer."""

import os
import select
import signal
import socket
import time
from typing import Any

from grader.exam import wire
from grader.exam.nursery import Nursery, NurseryGone, children, descendants
from grader.exam.stage import OUT_OF_MEMORY_EXIT
from grader.exam.verdict import Kind, Trouble

MEMORY_BYTES = 4 << 30
PROCESSES = 16
KEPT_OUTPUT_BYTES = 64 << 10
OUTPUT_LIMIT_BYTES = 1 << 20
_POLL_S = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")


class StageDied(Exception):
    """The stage is gone; `trouble` says what it did."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.trouble = Trouble(kind, message)


class Session:
    """A running stage. Raises NurseryGone if none can be started."""

    def __init__(self, nursery: Nursery, limited: bool = True) -> None:
        self.nursery = nursery
        ours, theirs = socket.socketpair()
        self.pipe, output = os.pipe()
        os.set_blocking(self.pipe, False)
        try:
            self.pid = nursery.start(theirs, output, MEMORY_BYTES if limited else None)
        finally:
            theirs.close()
            os.close(output)
        ours.setblocking(False)
        self.sock = ours
        self.requests = 0
        self.kept, self.printed = bytearray(), 0
        self.start_bytes = _resident([self.pid])

    def forget_output(self) -> None:
        self.kept, self.printed = bytearray(), 0

    def send(self, request: dict[str, Any], seconds: float) -> None:
        self.requests += 1
        data = memoryview(wire.encode({"id": self.requests, **request}))
        deadline = time.monotonic() + seconds
        while data:
            self._wait(deadline, seconds, write=True)
            try:
                data = data[self.sock.send(data[: 1 << 20]) :]
            except BlockingIOError:
                continue
            except OSError:
                self._dead()

    def answer(self, seconds: float) -> dict[str, Any]:
        """The reply to the last request. Raises StageDied."""
        deadline = time.monotonic() + seconds
        try:
            head, body = wire.lengths(self._read(wire.HEADER_BYTES, deadline, seconds))
            tree, tensors = self._read(head, deadline, seconds), self._read(body, deadline, seconds)
            reply = wire.decode(tree, tensors)
        except wire.WireError as error:
            self.close()
            raise StageDied(Kind.CRASH, f"The submission's process sent {error}.") from error
        self._drain()
        if not isinstance(reply, dict) or reply.get("id") != self.requests:
            self.close()
            raise StageDied(Kind.CRASH, "The submission's process answered out of turn.")
        if self._leftovers():
            self.close()
            raise StageDied(Kind.CRASH, "The submission left processes running.")
        if reply.get("threads"):
            self.close()
            raise StageDied(Kind.CRASH, "The submission left threads running.")
        return reply

    def _leftovers(self) -> bool:
        deadline = time.monotonic() + 0.2
        while children(self.pid) or len(children(self.nursery.pid)) > 1:
            if time.monotonic() > deadline:
                return True
            time.sleep(0.01)
        return False

    def _read(self, count: int, deadline: float, seconds: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                chunk = self.sock.recv(min(count - len(data), 1 << 20))
            except BlockingIOError:
                self._wait(deadline, seconds)
                continue
            except OSError:
                chunk = b""
            if not chunk:
                self._dead()
            data += chunk
        return bytes(data)

    def _wait(self, deadline: float, seconds: float, write: bool = False) -> None:
        """Until the socket is ready; watches output, memory, processes and the clock."""
        while True:
            outs = [self.sock.fileno()] if write else []
            ready, writable, _ = select.select([self.sock.fileno(), self.pipe], outs, [], _POLL_S)
            if self.pipe in ready:
                self._drain()
            if writable or self.sock.fileno() in ready:
                return
            if time.monotonic() > deadline:
                self.close()
                raise StageDied(Kind.TIMEOUT, f"No answer within {seconds:.3g} seconds.")
            below = descendants(self.nursery.pid)
            if len(below) > PROCESSES:
                self.close()
                raise StageDied(Kind.CRASH, f"More than {PROCESSES} processes were started.")
            if _resident(below) > self.start_bytes + MEMORY_BYTES:
                self.close()
                raise StageDied(Kind.MEMORY, _TOO_MUCH_MEMORY)

    def _drain(self) -> None:
        while True:
            try:
                chunk = os.read(self.pipe, 1 << 16)
            except (BlockingIOError, OSError):
                return
            if not chunk:
                return
            self.kept += chunk[: max(0, KEPT_OUTPUT_BYTES - len(self.kept))]
            self.printed += len(chunk)
            if self.printed > OUTPUT_LIMIT_BYTES:
                self.close()
                raise StageDied(Kind.OUTPUT, "More than 1 MiB was printed in one check.")

    def _dead(self) -> None:
        self._drain()
        status = self.close()
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            raise StageDied(Kind.CRASH, f"The submission's process was killed by {name}.")
        code = os.waitstatus_to_exitcode(status)
        if code == OUT_OF_MEMORY_EXIT:
            raise StageDied(Kind.MEMORY, _TOO_MUCH_MEMORY)
        raise StageDied(Kind.CRASH, f"The submission ended its own process (exit code {code}).")

    def close(self) -> int:
        """Kill what is left; returns the stage's wait status."""
        if self.pipe < 0:
            return 0
        pipe, self.pipe = self.pipe, -1
        try:
            return self.nursery.reap()
        except NurseryGone as error:
            raise StageDied(
                Kind.CRASH, "The process that runs the submission was killed."
            ) from error
        finally:
            os.close(pipe)
            self.sock.close()


_TOO_MUCH_MEMORY = "It asked for more than 4 GiB of memory."


def _resident(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm") as file:
                total += int(file.read().split()[1]) * _PAGE
        except (OSError, IndexError):
            continue
    return total
