"""Commands on a terminal of their own."""

import codecs
import contextlib
import os
import pty
import select
import subprocess
import time
from pathlib import Path

PATIENCE_S = 60.0


class Terminal:
    """A command with a terminal of its own, in a session of its own."""

    def __init__(self, command: list[str], work: Path, environment: dict[str, str]) -> None:
        self.near, far = pty.openpty()
        size = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
        self.process = subprocess.Popen(
            command,
            cwd=work,
            env={**environment, **size},
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
        )
        os.close(far)
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end in a character

    def until(self, *words: str) -> str:
        """What it shows until all the words have come."""
        said, end = "", time.monotonic() + PATIENCE_S
        while not all(word in said for word in words):
            assert time.monotonic() < end, f"{words} did not come, but:\n{said}"
            if select.select([self.near], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    said += self._decoder.decode(os.read(self.near, 1 << 16))
        return said

    def type(self, text: str) -> None:
        os.write(self.near, text.encode())

    def end(self) -> int:
        status = self.process.wait(PATIENCE_S)
        os.close(self.near)
        return status
