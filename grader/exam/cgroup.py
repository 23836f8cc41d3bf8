"""A control group that holds what a stage and all it starts may take together (Linux).

Where the machine lets us make one: as root, or below a group that was delegated to this user.
Version 1 has a folder for each controller, version 2 one for all.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_MEMORY = {  # file: what it is set to; those with "?" need not be there
    1: {"memory.limit_in_bytes": "{bytes}", "memory.memsw.limit_in_bytes?": "{bytes}"},
    2: {"memory.max": "{bytes}", "memory.swap.max?": "0", "memory.oom.group?": "0"},
}
_NAME, _OLD_S = "kata-", 3600
_EVENTS = {1: "memory.oom_control", 2: "memory.events"}


@dataclass
class Group:
    """Folders of one group; `version` is that of its memory's controller."""

    version: int
    memory: Path
    pids: Path | None
    seen: int = field(default=0)

    @classmethod
    def make(cls, memory_bytes: int, tasks: int) -> "Group | None":
        """A new group, or None where this machine lets us have none."""
        name = f"{_NAME}{os.getpid()}-{os.urandom(4).hex()}"
        for version, parent in _places("memory"):
            _swept(parent)
            made = _made(parent / name)
            if made is None:
                continue
            files = {k: v.format(bytes=memory_bytes) for k, v in _MEMORY[version].items()}
            if not _written(made, files) or not _takes(made):
                _removed(made)
                continue
            return cls(version, made, _pids(made, version, name, tasks))
        return None

    def add(self, pid: int) -> None:
        """Put a process in; what it starts from now on is in, too. Raises OSError."""
        for folder in {self.memory, self.pids} - {None}:
            assert folder is not None
            (folder / "cgroup.procs").write_text(str(pid))
        self.seen = self._kills()

    def killed(self) -> bool:
        """Whether since the last `add` the kernel killed one of it for its memory."""
        return self._kills() > self.seen

    def close(self) -> None:
        """Remove it; nothing of it may live any more."""
        for folder in {self.memory, self.pids} - {None}:
            assert folder is not None
            _removed(folder)

    def _kills(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            for line in (self.memory / _EVENTS[self.version]).read_text().splitlines():
                name, _, number = line.partition(" ")
                if name == "oom_kill":
                    return int(number)
        return 0


def _places(controller: str) -> Iterator[tuple[int, Path]]:
    """Version and folder of the groups that this process is in, the nearest first, which a
    controller acts below."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        own = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    paths = {tuple(line.split(":")[1].split(",")): line.split(":", 2)[2] for line in own}
    for line in mounts:
        fields, _, after = line.partition(" - ")
        root, mount = fields.split()[3:5]
        kind, _, options = after.split()[:3]
        version = {"cgroup": 1, "cgroup2": 2}.get(kind)
        if version is None or (version == 1 and controller not in options.split(",")):
            continue
        wanted = "" if version == 2 else controller
        named = next((path for names, path in paths.items() if wanted in names), "/")
        below = os.path.relpath(named, root) if named.startswith(root) else "."
        here = Path(os.path.normpath(Path(mount) / below))
        for folder in (here, *here.parents):
            if version == 1 or controller in _text(folder / "cgroup.subtree_control").split():
                yield version, folder
            if folder == Path(mount):
                break


def _pids(memory: Path, version: int, name: str, tasks: int) -> Path | None:
    """Where the number of processes is held: beside the memory in version 2."""
    limit = {"pids.max": str(tasks)}
    if version == 2:
        return memory if _written(memory, limit) else None
    for at, parent in _places("pids"):
        _swept(parent)
        made = _made(parent / name)
        if made is not None:
            if at == 1 and _written(made, limit) and _takes(made):
                return made
            _removed(made)
    return None


def _swept(parent: Path) -> None:
    """Remove what examiners that were killed have left there: groups of no process, an hour
    old."""
    for folder in parent.glob(f"{_NAME}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _OLD_S:
                folder.rmdir()


def _made(folder: Path) -> Path | None:
    try:
        folder.mkdir()
    except OSError:
        return None
    return folder


def _written(folder: Path, files: dict[str, str]) -> bool:
    for name, text in files.items():
        try:
            (folder / name.rstrip("?")).write_text(text)
        except OSError:
            if not name.endswith("?"):
                return False
    return True


def _takes(folder: Path) -> bool:
    """Whether a process of ours may be moved there: into some groups none may."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            (folder / "cgroup.procs").write_text(str(os.getpid()))
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def _removed(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
