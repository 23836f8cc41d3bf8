"""The process that starts stages, and sees to it that nothing of theirs outlives them.

It is forked from the main process right after torch is imported, before suites or solutions
are, so a stage forked here has torch at hand and nothing else of ours.
"""

import contextlib
import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

_START, _REAP, _ACCELERATOR = b"S", b"R", b"A"
_ORDER = struct.Struct("!cq")
_ANSWER = struct.Struct("!q")
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
_REAP_S = 5.0
_ANSWER_S, _ACCELERATOR_S = 8.0, 60.0  # a driver may take long to start
_KINDS = ("", "cuda", "xpu")  # accelerators that the gpu part knows; MPS lacks float64


class NurseryGone(Exception):
    """The process that starts stages was killed or stopped."""


def children(pid: int) -> list[int]:
    """Living children of a process (Linux; elsewhere none are seen)."""
    return [child for child in all_children(pid) if _running(child)]


def all_children(pid: int) -> list[int]:
    """Those that have ended and are not waited for yet, too."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        with contextlib.suppress(OSError):
            found += map(int, read_proc(f"/proc/{pid}/task/{task}/children").split())
    return found


def read_proc(path: str) -> bytes:
    """A file of /proc, whole; a third of what an open file object takes."""
    file, data = os.open(path, os.O_RDONLY), b""
    try:
        while piece := os.read(file, 1 << 16):
            data += piece
    finally:
        os.close(file)
    return data


def stat(pid: int) -> list[bytes]:
    """What /proc says of a process behind its name: its state, its parent... Raises OSError."""
    return read_proc(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _running(pid: int) -> bool:
    try:
        return stat(pid)[0] not in b"ZX"
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """Living processes below one, nearest first."""
    found: list[int] = []
    queue = [pid]
    while queue and len(found) < 10_000:
        below = children(queue.pop(0))
        found += below
        queue += below
    return found


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end_with_parent() -> None:
    """Have this process killed when the one that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def undumpable() -> None:
    """Keep other processes of this user from tracing this one and from reading its memory."""
    _prctl(_PR_SET_DUMPABLE, 0)


def remove_tree(folder: str) -> None:
    """Remove a folder with all that is in it, however deep it goes and whatever its modes.

    What lies deeper is moved up first: neither recursion nor the length of a path sets a limit.
    """
    with contextlib.suppress(OSError):
        os.chmod(folder, 0o700)
    waiting, number = [folder], 0
    while waiting:
        here = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(here) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        os.chmod(entry.path, 0o700)
                        number += 1
                        up = f"{folder}.{number}"
                        os.rename(entry.path, up)
                        waiting.append(up)
                    else:
                        os.unlink(entry.path)
        with contextlib.suppress(OSError):
            os.rmdir(here)


def cores() -> int:
    """How many processes may compute side by side here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Nursery:
    """The examiner's end: orders go through `sock`; at most one stage lives at a time.

    A submission may kill or stop the process, which is its own parent: then it is `gone`, all
    that was below it is killed, and a new one is to be made.
    """

    pid: int
    sock: socket.socket
    folder: str
    gone: bool = False

    @classmethod
    def fork(cls, beside: "Sequence[Nursery]" = ()) -> "Nursery":
        """Fork it, `beside` others. Call this before anything a submission must not see is
        imported."""
        ours, theirs = socket.socketpair()
        folder = tempfile.mkdtemp(prefix="kata-")
        for stream in (sys.stdout, sys.stderr):  # None where it was closed
            if stream is not None:
                stream.flush()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for sock in (ours, *(other.sock for other in beside)):
                    sock.close()
                from grader.exam import surroundings

                surroundings.ready()
                Keeper(theirs, folder).run()
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        return cls(pid, ours, folder)

    @classmethod
    def spawn(cls) -> "Nursery":
        """A new one from a new interpreter: a fork of this process would hold suites by now."""
        ours, theirs = socket.socketpair()
        folder = tempfile.mkdtemp(prefix="kata-")
        command = [sys.executable, "-m", "grader.exam.nursery", str(theirs.fileno()), folder]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        process.returncode = 0  # close() waits for it, by its pid
        return cls(process.pid, ours, folder)

    def _order(
        self,
        what: bytes,
        value: int = 0,
        fds: list[int] | None = None,
        seconds: float = _ANSWER_S,
    ) -> int:
        if self.gone:
            raise NurseryGone
        answer = b""
        try:
            # The kernel's own time limit: Python's would poll, which a submission can forbid this
            # process by taking away its right to open files.
            limit = struct.pack("@ll", int(seconds), 0)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            order = _ORDER.pack(what, value)
            if fds:
                socket.send_fds(self.sock, [order], fds)
            else:
                self.sock.sendall(order)
            answer = self.sock.recv(_ANSWER.size, socket.MSG_WAITALL)
        except OSError:
            pass
        if len(answer) != _ANSWER.size:
            self._destroy()
            raise NurseryGone
        return int(_ANSWER.unpack(answer)[0])

    def _destroy(self) -> None:
        self.gone = True
        for pid in (*descendants(self.pid), self.pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.close()

    def start(self, sock: socket.socket, output: int, memory_bytes: int | None) -> int:
        """Start a stage on these descriptors; returns its pid. Raises NurseryGone."""
        return self._order(_START, memory_bytes or 0, [sock.fileno(), output])

    def reap(self) -> int:
        """Kill the stage and all it started; returns how it ended (a wait status)."""
        return self._order(_REAP)

    def out_of_memory(self) -> bool:
        """Whether the kernel ended the last stage for the memory that it took."""
        return False

    def accelerator(self) -> str:
        """The torch device type of this machine's accelerator, or ''."""
        import torch

        built = torch.version.cuda, torch.version.hip, torch.xpu._is_compiled() or None
        if built == (None, None, None):
            return ""
        return _KINDS[self._order(_ACCELERATOR, seconds=_ACCELERATOR_S)]

    def close(self) -> None:
        """End it, and all that is left of its stages."""
        self.sock.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        remove_tree(self.folder)


class Keeper:
    """The nursery's own side."""

    def __init__(self, sock: socket.socket, base: str) -> None:
        self.sock, self.base = sock, base
        self.stage = 0
        self.folder = ""

    def run(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        try:
            while True:
                order, fds, *_ = socket.recv_fds(self.sock, _ORDER.size, 2)
                if len(order) != _ORDER.size:
                    return
                what, value = _ORDER.unpack(order)
                if what == _START:
                    answer = self.start(fds, value)
                elif what == _REAP:
                    answer = self.reap()
                else:
                    answer = self._ask_accelerator()
                self.sock.sendall(_ANSWER.pack(answer))
        except OSError:
            return
        finally:
            self.reap()
            remove_tree(self.base)

    def start(self, fds: list[int], memory_bytes: int) -> int:
        self.reap()
        self.folder = tempfile.mkdtemp(dir=self.base)
        nursery = os.getpid()
        self.stage = os.fork()
        if self.stage == 0:
            status = 1
            try:
                end_with_parent()
                if os.getppid() == nursery:
                    from grader.exam import stage

                    stage.limit(memory_bytes or None)
                    self.become_stage(fds)
                    status = 0
            finally:
                os._exit(status)
        for fd in fds:
            os.close(fd)
        return self.stage

    def become_stage(self, fds: list[int]) -> None:
        """Serve as the stage on these descriptors, with nothing else of the nursery's."""
        os.setsid()
        sock_fd, output = fds
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(sock_fd, 3) if sock_fd != 3 else None
        os.closerange(4, 1 << 16)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.environ.update(HOME=self.folder, TMPDIR=self.folder, PYTHONSTARTUP="")
        tempfile.tempdir = None
        os.chdir(self.folder)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
        vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
        from grader.exam import stage

        sys.breakpointhook = stage.no_debugger
        with socket.socket(fileno=3) as sock:
            sock.setblocking(True)
            stage.serve(sock)

    def reap(self) -> int:
        """Kill every descendant until none is left; orphans come to us as their subreaper."""
        status = 0
        deadline = time.monotonic() + _REAP_S
        while self.stage or descendants(os.getpid()):
            if self.stage:
                # The session's group too: where children can't be listed it is all we have.
                for kill in (os.kill, os.killpg):
                    with contextlib.suppress(OSError):
                        kill(self.stage, signal.SIGKILL)
            below = descendants(os.getpid())
            for number in (signal.SIGSTOP, signal.SIGKILL):  # a fork bomb must not outrun us
                for pid in below:
                    with contextlib.suppress(OSError):
                        os.kill(pid, number)
            try:
                pid, ended = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.stage = 0
                break
            if pid == self.stage and pid:
                self.stage, status = 0, ended
            if not pid:
                time.sleep(0.001)
            if time.monotonic() > deadline:
                break
        if self.folder:
            remove_tree(self.folder)
            self.folder = ""
        return status

    def _ask_accelerator(self) -> int:
        """Ask in a throwaway child: once a process has touched CUDA, its forks cannot."""
        import torch

        pid = os.fork()
        if pid == 0:
            kind = 0
            try:
                device = torch.accelerator.current_accelerator(check_available=True)
                kind = _KINDS.index(device.type) if device is not None else 0
            finally:
                os._exit(kind)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    import torch  # noqa: F401 – what every stage needs at hand

    from grader.exam import surroundings

    surroundings.ready()
    Keeper(socket.socket(fileno=int(sys.argv[1])), sys.argv[2]).run()
