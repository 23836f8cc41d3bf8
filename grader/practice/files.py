"""Reading and replacing one file of the learner's so that no byte of theirs can get lost.

Replacing is always: keep what is there now as a snapshot (committed), then put the new file in
its place in one step. Killed anywhere between, the old file is still there, or is in the
snapshots, or both.
"""

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from grader.errors import UsageFault

KEEPABLE_BYTES = 64 << 20
_TEMPORARY = ".kata-tmp"


def read(path: Path) -> bytes | None:
    """The file's bytes; None if there is none. Raises UsageFault if it cannot be kept."""
    try:
        # Without blocking: a FIFO would wait for its writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageFault(f"{path} cannot be read: {error.strerror}.") from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise UsageFault(f"{path} is {kind}. Move it away first; nothing was changed.")
    with os.fdopen(handle, "rb") as file:
        source = file.read(KEEPABLE_BYTES + 1)
    if len(source) > KEEPABLE_BYTES:
        raise UsageFault(
            f"{path} is larger than {KEEPABLE_BYTES >> 20} MiB, too large to keep a copy of.\n"
            "Move it away first; nothing was changed."
        )
    return source


def replace(path: Path, source: bytes, keep: Callable[[bytes], None]) -> None:
    """Put `source` at `path` in one step, after `keep` has stored what is there now.

    `keep` is called with other bytes than `source` only; the same ones stay, as changed now (`run`
    grades the file that changed last). A symbolic link stays one: the file it points to is
    replaced. Permissions stay. Raises UsageFault if the file cannot be read or written, and
    whatever `keep` raises; the old file is untouched then.
    """
    there = read(path)
    if there == source:
        with contextlib.suppress(OSError):
            path.touch()
        return
    if there is not None:
        keep(there)
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}{_TEMPORARY}")
    try:
        _sweep(target)
        _write(temporary, source, _mode(target))
        # An editor may have saved meanwhile: what is there at the last moment is what counts.
        while (now := read(path)) != there:
            if now is not None:
                keep(now)
            there = now
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise UsageFault(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def create(path: Path, source: bytes) -> bool:
    """Write a new file; False, and nothing done, if something of that name is there."""
    if os.path.lexists(path):
        return False
    try:
        _write(path, source, None)
    except FileExistsError:
        return False
    except OSError as error:
        with contextlib.suppress(OSError):  # half a file, on a full disk, would pass for ours
            path.unlink(missing_ok=True)
        raise UsageFault(f"{path} cannot be written: {error.strerror}.") from error
    return True


def _write(path: Path, source: bytes, mode: int | None) -> None:
    with path.open("xb") as file:
        file.write(source)
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())


def _mode(target: Path) -> int | None:
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except OSError:
        return None


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(target: Path) -> None:
    """Remove what a killed process left half-written. It held nothing of the learner's."""
    for path in target.parent.glob(f".{target.name}.*{_TEMPORARY}"):
        number = path.name.removesuffix(_TEMPORARY).rpartition(".")[2]
        if number.isdigit() and not _alive(int(number)):
            path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # ours from an earlier life: this process has none open yet
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
