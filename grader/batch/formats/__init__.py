"""What a run leaves in its output folder beside the results themselves.

results.json with its schema and results.csv are for who grades and come always, as do the learners'
files in `feedback/`. The others are for programs, and come when asked for: a learner may see what
they hold, so `junit` apart they tell no more than the feedback does.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import IO

from grader.batch.feedback import Told
from grader.batch.formats import (
    actions,
    classroom,
    csv,
    exercism,
    gradescope,
    json,
    junit,
    learners,
)
from grader.batch.names import file_names
from grader.batch.records import Results
from grader.errors import GraderError, UsageFault

Write = Callable[[Results, Told, IO[bytes]], None]
Each = Callable[[Results, Told], Iterator[tuple[str, str, str]]]

# One file of all, by its name.
WHOLE: dict[str, tuple[str, Write]] = {
    "json": ("results.json", json.write),
    "csv": ("results.csv", csv.write),
    "junit": ("junit.xml", junit.write),
    "actions": ("annotations.txt", actions.write),
}
# A folder with files of each person: whose, what follows the person's name in the path, the text.
APART: dict[str, Each] = {
    "feedback": learners.files,
    "gradescope": gradescope.files,
    "exercism": exercism.files,
    "classroom": classroom.files,
}
ALWAYS = ("json", "csv", "feedback")
CHOICES = tuple(name for name in (*WHOLE, *APART) if name not in ALWAYS)
_SCHEMA = "results.schema.json"
_OURS = ".kata-grade"  # an empty file in each folder that a later run may throw away


def write(results: Results, folder: Path, told: Told, also: Sequence[str] = ()) -> list[str]:
    """Write these formats and those that come always; gives what they are called. Each file, or
    folder, appears whole or not at all. Raises GraderError, and UsageFault where a folder of
    somebody else stands in the place of one of ours."""
    wanted = {*ALWAYS, *also}
    names = []
    for name, (file, whole) in WHOLE.items():
        if name in wanted:
            with _appearing(folder / file) as out:
                whole(results, told, out)
            names.append(file)
    put(folder / _SCHEMA, resources.files(__package__).joinpath(_SCHEMA).read_text("utf-8"))
    people = file_names(results.people())
    for name, each in APART.items():
        if name in wanted:
            _replace(
                folder / name, ((people[who] + end, text) for who, end, text in each(results, told))
            )
            names.append(f"{name}/")
    return names


def put(path: Path, text: str) -> None:
    """Write one more file in the same way."""
    with _appearing(path) as file:
        file.write(text.encode())


@contextmanager
def _appearing(path: Path) -> Iterator[IO[bytes]]:
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            yield file
        os.replace(new, path)
    except OSError as error:
        raise GraderError(f"{path} cannot be written: {error.strerror}.") from error


def _replace(folder: Path, files: Iterable[tuple[str, str]]) -> None:
    """A new folder in the place of the old: what was told of somebody or of a kata that is no
    more part of the run, or at another level, goes with that."""
    if folder.exists() and not (folder / _OURS).exists():
        raise UsageFault(f"{folder} is none of `kata grade`. Move it away, or name another --out.")
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    try:
        for left in (new, old):
            if left.exists():
                shutil.rmtree(left)
        new.mkdir()
        (new / _OURS).touch()
        for name, text in files:
            path = new / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        raise GraderError(f"{folder} cannot be written: {error.strerror}.") from error
