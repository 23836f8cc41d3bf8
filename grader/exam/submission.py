"""Reading a submission, whatever stands at its path."""

import os
import stat
from pathlib import Path

from grader.errors import UsageFault
from grader.exam.verdict import Kind, Trouble

LIMIT_BYTES = 1 << 20


def read(path: Path, limit_bytes: int = LIMIT_BYTES) -> bytes | Trouble:
    """The file's bytes, or what is wrong with it.

    Raises UsageFault if nothing stands at `path`.
    """
    try:
        # Without O_NONBLOCK a FIFO would keep us waiting for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UsageFault(f"There is no file {path}.") from None
    except IsADirectoryError:
        return Trouble(Kind.MISSING, f"{path} is a folder, not a file.")
    except OSError as error:
        return Trouble(Kind.MISSING, f"{path} cannot be read: {error.strerror}.")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        kind = "a folder" if path.is_dir() else "a pipe or device"
        return Trouble(Kind.MISSING, f"{path} is {kind}, not a file.")
    with os.fdopen(fd, "rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        mib = limit_bytes >> 20
        return Trouble(Kind.IMPORT, f"{path} is larger than {mib} MiB; no answer is that long.")
    return data
