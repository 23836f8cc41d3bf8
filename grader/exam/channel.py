"""One stage as the examiner sees it: send a request, wait within limits, read the answer."""

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any

from grader.exam import protocol, wire
from grader.exam.nursery import Nursery, NurseryGone, children, descendants, read_proc, stat
from grader.exam.stage import OUT_OF_MEMORY_EXIT
from grader.exam.verdict import Kind, Trouble

MEMORY_BYTES = 4 << 30
PROCESSES = 16
KEPT_OUTPUT_BYTES = 64 << 10
OUTPUT_LIMIT_BYTES = 1 << 20
_POLL_S = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_MUCH_BYTES = 256 << 20  # held at the end of the time, it tells what the time went into
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


class StageDied(Exception):
    """The stage is gone; `trouble` says what it did, `late` that its time had run out, `tampered`
    what it had replaced."""

    def __init__(
        self, kind: Kind, message: str, *, late: bool = False, tampered: str | None = None
    ) -> None:
        super().__init__(message)
        self.trouble, self.late, self.tampered = Trouble(kind, message), late, tampered


class Allowance:
    """What one check may take, over all its probes: processor time, and behind it a generous
    time on the clock. Without /proc the clock alone decides."""

    def __init__(self, cpu_s: float, wall_s: float) -> None:
        self.cpu_s, self.wall_s = cpu_s, wall_s
        if sys.platform != "linux":
            self.wall_s = min(wall_s, 2 * cpu_s)


class Channel:
    """A running stage. Raises NurseryGone if none can be started."""

    def __init__(self, nursery: Nursery, limited: bool = True) -> None:
        self.nursery = nursery
        self.limits = _limits()
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
        self.files = _opened(
            f"/proc/{self.pid}/stat",
            f"/proc/{self.pid}/task/{self.pid}/children",
            f"/proc/{nursery.pid}/task/{nursery.pid}/children",
        )

    def forget_output(self) -> None:
        self.kept, self.printed = bytearray(), 0

    def ask(self, request: dict[str, Any], allowance: Allowance) -> protocol.Reply:
        """Send a request and await its reply; what that took is taken from the allowance.
        Raises StageDied."""
        self.send(request)
        return self.answer(allowance)

    def send(self, request: dict[str, Any]) -> None:
        """Send a request, whose time runs from now on. Raises StageDied."""
        self._unasked()
        self.requests += 1
        self.started = time.monotonic(), self._glance()[1]
        data = memoryview(wire.encode({"id": self.requests, **request}))
        allowance = Allowance(_SEND_S, _SEND_S)
        while data:
            try:
                data = data[self.sock.send(data[: 1 << 20]) :]
            except BlockingIOError:
                self._wait(allowance, write=True)
            except OSError:
                self._dead()

    def _unasked(self) -> None:
        """Nothing has come since the last answer: a stage says nothing of its own accord."""
        with contextlib.suppress(OSError):
            if self.sock.recv(1, socket.MSG_PEEK):
                self.close()
                raise StageDied(Kind.CRASH, _OUT_OF_TURN)

    def answer(self, allowance: Allowance) -> protocol.Reply:
        """The reply to the last request. Raises StageDied."""
        try:
            head, body = wire.lengths(self._read(wire.HEADER_BYTES, allowance))
            data = self._read(head + body, allowance)
            reply = protocol.reply(wire.decode(data[:head], data[head:]))
        except (wire.WireError, protocol.Malformed) as error:
            self.close()
            what = error if isinstance(error, wire.WireError) else "malformed evidence"
            raise StageDied(Kind.CRASH, f"The submission's process sent {what}.") from error
        alone, total = self._glance()
        if not alone:
            alone = self._alone()
            total = _cpu_s([self.pid] if alone else self._below())
        wall, cpu = self._taken(total)
        allowance.wall_s = max(0.05, allowance.wall_s - wall)
        allowance.cpu_s = max(0.05, allowance.cpu_s - cpu)
        self._drain()
        trouble = self._trouble(reply, alone)
        if trouble:
            self.close()
            raise StageDied(Kind.CRASH, trouble, tampered=reply.replaced)
        return reply

    def _trouble(self, reply: protocol.Reply, alone: bool) -> str:
        if reply.id != self.requests:
            return _OUT_OF_TURN
        if not alone and self._leftovers():
            return "The submission left processes running."
        if reply.threads:
            return "The submission left threads running."
        if _limits() != self.limits:
            for what, limit in self.limits.items():
                with contextlib.suppress(OSError, ValueError):
                    resource.setrlimit(what, limit)
            return "The submission changed the limits of the process that judges it."
        if reply.replaced:
            return (
                f"The submission replaced {reply.replaced}, which the checks rely on. "
                "Leave torch as it is and write the answer in your own classes and functions."
            )
        return ""

    def _glance(self) -> tuple[bool, float]:
        """Whether the stage has surely started nothing, and seconds of processor time that it has
        used, from files that stay open: to open them anew takes longer than to read them."""
        try:
            stat, own, beside = (os.pread(file, 4096, 0) for file in self.files)
            fields = stat.rpartition(b")")[2].split()
            alone = fields[17] == b"1" and not own and int(beside) == self.pid
            return alone, sum(map(int, fields[11:15])) * _TICK_S
        except (OSError, ValueError, IndexError):
            return False, 0.0

    def _alone(self) -> bool:
        """Whether the stage has started nothing. Its own are listed first: what loses its parent
        in between comes to the nursery."""
        return not children(self.pid) and len(children(self.nursery.pid)) < 2

    def _leftovers(self) -> bool:
        deadline = time.monotonic() + 0.2
        while not self._alone():
            if time.monotonic() > deadline:
                return True
            time.sleep(0.01)
        return False

    def _taken(self, cpu_s: float) -> tuple[float, float]:
        """Seconds on the clock and of processor time since the request was sent; cpu_s: all that
        the stage and what it has started have used."""
        wall, cpu = self.started
        return time.monotonic() - wall, cpu_s - cpu

    def _below(self) -> list[int]:
        return descendants(self.nursery.pid)

    def _read(self, count: int, allowance: Allowance) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                chunk = self.sock.recv(min(count - len(data), 1 << 20))
            except BlockingIOError:
                self._wait(allowance)
                continue
            except OSError:
                chunk = b""
            if not chunk:
                self._dead()
            data += chunk
        return bytes(data)

    def _wait(self, allowance: Allowance, write: bool = False) -> None:
        """Until the socket is ready; watches output, memory, processes, and the time taken."""
        while True:
            awaited, none = [self.sock.fileno()], list[int]()
            ins, outs = (none, awaited) if write else (awaited, none)
            ready, writable, _ = select.select([*ins, self.pipe], outs, [], _POLL_S)
            if self.pipe in ready:
                self._drain()
            if writable or self.sock.fileno() in ready:
                return
            below = self._below()
            if len(below) > PROCESSES:
                self.close()
                raise StageDied(Kind.CRASH, f"More than {PROCESSES} processes were started.")
            held = _resident(below) - self.start_bytes
            if held > MEMORY_BYTES:
                self.close()
                if len(below) > 2:  # what they share is counted for each
                    text = f"{len(below)} processes were started, which take over 4 GiB."
                    raise StageDied(Kind.CRASH, text)
                raise StageDied(Kind.MEMORY, _TOO_MUCH_MEMORY)
            wall, cpu = self._taken(_cpu_s(below))
            if cpu > allowance.cpu_s or wall > allowance.wall_s:
                self.close()
                raise _out_of_time(cpu > allowance.cpu_s, cpu, wall, held)

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
        if self.nursery.out_of_memory():
            raise StageDied(Kind.MEMORY, _TOO_MUCH_MEMORY)
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
            for file in (pipe, *self.files):
                os.close(file)
            self.sock.close()


_SEND_S = 20.0


def _out_of_time(computing: bool, cpu: float, wall: float, held: int) -> StageDied:
    if held > _MUCH_BYTES:
        text = f"It held {held / 2**30:.1f} GiB of memory and was asking for more"
        grows = f"{text} after {wall:.1f} s: something grows without end."
        return StageDied(Kind.MEMORY, grows, late=True)
    if computing:
        text = f"No end after {cpu:.1f} s of computing: a loop that does not stop?"
        return StageDied(Kind.TIMEOUT, text, late=True)
    text = f"No answer within {wall:.0f} s: it waits for something."
    return StageDied(Kind.TIMEOUT, text, late=True)


_OUT_OF_TURN = "The submission's process answered out of turn."
_TOO_MUCH_MEMORY = "It asked for more than 4 GiB of memory."


def _opened(*paths: str) -> list[int]:
    """These files of /proc, or none where there are none."""
    files: list[int] = []
    with contextlib.suppress(OSError):
        for path in paths:
            files.append(os.open(path, os.O_RDONLY))
    return files


def _resident(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            total += int(read_proc(f"/proc/{pid}/statm").split()[1]) * _PAGE
    return total


def _cpu_s(pids: list[int]) -> float:
    """Seconds of processor time that these processes, and those they waited for, have used."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            ticks += sum(map(int, stat(pid)[11:15]))
    return ticks * _TICK_S


def _limits() -> dict[int, tuple[int, int]]:
    return {what: resource.getrlimit(what) for what in _LIMITS}
