"""The nursery's own side in the box: a Keeper whose stages lock themselves.

It is started by `exam/box.py`, with the files of ours that a stage needs and no others. It holds
one right that its stages do not: to make namespaces.
"""

import gc
import json
import os
import signal
import site
import socket
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from grader.exam import locks, nursery

TMP = "/tmp"
_SAID_BYTES = 1 << 16
_LOCKED = b"locked"


def main(descriptor: int) -> None:
    """Say what holds of the locks, as a line of JSON, and then start stages until the examiner
    hangs up."""
    sock = socket.socket(fileno=descriptor)
    asked = json.loads(sock.makefile("rb").readline())
    for name in ("setquit", "setcopyright", "sethelper"):  # what python -S leaves out
        getattr(site, name)()
    sys.path += asked["sites"]
    gc.disable()  # there is next to no garbage, and to look for it takes 0.3 s
    if asked["torch"]:
        import torch

        torch.set_num_threads(1)
        float((torch.randn(8, 8) @ torch.randn(8, 8)).sum())  # reads /proc, once
        from grader.exam import stage, surroundings

        stage.asking_in_two_ways()
        surroundings.ready()
    gc.freeze()
    gc.enable()
    try:
        keeper = _BoxedKeeper(sock)
        said = keeper.trial(asked["hidden"])
    except (OSError, locks.LockFailed) as error:
        said = json.dumps(str(error)).encode()
    sock.sendall(said + b"\n")
    keeper.run()


class _BoxedKeeper(nursery.Keeper):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, TMP)
        self.namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)

    def _fork(self, work: Callable[[int], None]) -> tuple[int, bytes]:
        """A child, the first of its PID namespace, and what its work has written to the
        descriptor that it was given, until it closed that."""
        reading, saying = os.pipe()
        locks.unshare(locks.NEWPID)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                nursery.end_with_parent()
                work(saying)
                status = 0
            finally:
                os._exit(status)
        locks.enter(self.namespace, locks.NEWPID)
        os.close(saying)
        said = b""
        while len(said) < _SAID_BYTES and (piece := os.read(reading, _SAID_BYTES)):
            said += piece
        os.close(reading)
        return pid, said

    def start(self, fds: list[int], memory_bytes: int) -> int:
        """Start a stage; -1 if it could not be locked."""
        self.reap()

        def work(saying: int) -> None:
            from grader.exam import stage

            stage.limit(memory_bytes or None)
            locks.lock()
            os.write(saying, _LOCKED)
            os.close(saying)
            self.folder = TMP
            sys.modules["__main__"] = types.ModuleType("__main__")
            self.become_stage(fds)

        self.stage, said = self._fork(work)
        for fd in fds:
            os.close(fd)
        return self.stage if said == _LOCKED else -1

    def reap(self) -> int:
        """Kill the stage; before it ends the kernel kills all others of its PID namespace."""
        if not self.stage:
            return 0
        pid, self.stage = self.stage, 0
        os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]

    def trial(self, hidden: Sequence[str]) -> bytes:
        """What holds of the locks, as JSON."""
        networkless = locks.alone_on_the_network()

        def work(saying: int) -> None:
            try:
                locks.lock()
                found: Any = locks.trial(hidden, networkless)
            except locks.LockFailed as error:
                found = str(error)
            os.write(saying, json.dumps(found).encode())

        pid, said = self._fork(work)
        os.waitpid(pid, 0)
        return said
