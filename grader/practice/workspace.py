"""The learner's folder of `<slug>.py` files: finding it, laying it out, changing its files."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from grader import content
from grader.errors import UsageFault
from grader.practice import files, stubs
from grader.store.attempts import Attempts, Reason, Snapshot

MARKER = ".kata-workspace"
SETTING = "workspace"  # the folder of the last `kata init`
_MARKER_TEXT = b"A folder of katas: the kata command finds it by this file.\n"


@dataclass(frozen=True)
class Workspace:
    """`found` says how the folder was come by, as in "from KATA_WORKSPACE"."""

    folder: Path
    found: str

    def path(self, slug: str) -> Path:
        return self.folder / f"{slug}.py"

    def existing(self, slug: str) -> Path:
        """The kata's file. Raises UsageFault if there is none."""
        path = self.path(slug)
        if not os.path.lexists(path):
            raise UsageFault(f"{shown(path)} does not exist. `kata start {slug}` makes it.")
        return path


def find(
    option: Path | None,
    environment: Mapping[str, str],
    here: Path,
    remembered: Callable[[], str | None],
) -> Workspace:
    """The workspace that holds for a command run in the folder `here`.

    `option` is --workspace; `remembered` gives the folder of the last `kata init`, and is called
    only when nothing nearer says. Raises UsageFault if there is none, or a named one is missing.
    """
    if option is not None:
        return _named(option, here, "from --workspace")
    if named := environment.get("KATA_WORKSPACE"):
        return _named(Path(named), here, "from KATA_WORKSPACE")
    for folder in (here, *here.parents):
        if (folder / MARKER).is_file():
            return Workspace(folder, "around the current folder")
    if (clone := content.clone()) is not None:
        return Workspace(clone / "katas", "of this clone")
    if (last := remembered()) is not None and Path(last).is_dir():
        return Workspace(Path(last), "from the last `kata init`")
    raise UsageFault("There is no workspace yet: `kata init DIR` makes one.")


def _named(folder: Path, here: Path, found: str) -> Workspace:
    folder = here / folder.expanduser()
    if not folder.is_dir():
        raise UsageFault(
            f"The workspace {folder} ({found}) is no folder. `kata init {folder}` makes one."
        )
    return Workspace(folder, found)


def lay_out(folder: Path, slugs: Iterable[str]) -> list[str]:
    """Make a workspace: every stub that is not there yet, and the marker. Returns the new slugs.

    Raises UsageFault if the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageFault(f"{folder} cannot be made: {error.strerror}.") from error
    new = [slug for slug in slugs if files.create(folder / f"{slug}.py", stubs.stub(slug).encode())]
    files.create(folder / MARKER, _MARKER_TEXT)
    return new


def put(
    path: Path, slug: str, source: bytes, reason: Reason, attempts: Attempts, now: datetime
) -> Snapshot | None:
    """Replace the learner's file; what was there is kept as a snapshot, which is returned.

    None if there was nothing to keep: no file, the same bytes, or the untouched stub.
    Raises UsageFault or StoreError, and has changed nothing then.
    """
    blank = stubs.stub(slug).encode()
    kept: list[Snapshot] = []

    def keep(there: bytes) -> None:
        if there != blank:
            kept.append(attempts.keep(slug, there, reason, now))

    files.replace(path, source, keep)
    return kept[-1] if kept else None


def shown(path: Path) -> str:
    """A path as people read it: from the current folder if it lies in or right beside that."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):
        return str(path)
    return relative if not relative.startswith("../..") else str(path)
