"""What a run leaves in its output folder beside the results themselves, one file a format."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from grader.batch.formats import csv, json
from grader.errors import GraderError
from grader.store.results import Results

Write = Callable[[Results, IO[bytes]], None]

FORMATS: dict[str, Write] = {"results.json": json.write, "results.csv": csv.write}


def write(results: Results, folder: Path) -> None:
    """Write every format; each file appears whole or not at all. Raises GraderError."""
    for name, write in FORMATS.items():
        new = folder / f".{name}.new"
        try:
            with new.open("wb") as file:
                write(results, file)
            os.replace(new, folder / name)
        except OSError as error:
            raise GraderError(f"{folder / name} cannot be written: {error.strerror}.") from error
