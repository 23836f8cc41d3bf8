"""results.csv: a line a submission, for spreadsheets."""

import csv
import io
from typing import IO

from grader.batch import judged
from grader.batch.feedback import Told
from grader.batch.judged import Judged, bug_of
from grader.batch.records import Results

_HEAD = (
    "who",
    "kata",
    "outcome",
    "level",
    "checks_passed",
    "checks",
    "mistakes",
    "replaces",
    "uses",
    "trouble",
    "boxed",
    "seconds",
    "file",
    "sha256",
)
# What a spreadsheet would compute, or take apart, at the beginning of a cell.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_CELL_CHARS = 2000


def write(results: Results, told: Told, file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, "utf-8", newline="")
    lines = csv.writer(text)
    lines.writerow(_HEAD)
    for one in judged.each(results):
        lines.writerow(map(_cell, _cells(one)))
    text.flush()
    text.detach()


def _cells(one: Judged) -> tuple[object, ...]:
    passed, of = one.points
    titles = [bug.title for id in one.bugs if (bug := bug_of(one.slug, id)) is not None]
    error = one.error
    return (
        one.who,
        one.slug,
        one.outcome,
        one.level,
        passed,
        of,
        "; ".join(titles),
        "; ".join(one.tampered),
        "; ".join(one.marks),
        one.trouble or (f"{error.kind}: {error.message}" if error else ""),
        {None: "", True: "yes", False: "no"}[one.row.boxed],
        f"{one.seconds:.3f}",
        one.row.submission.file,
        one.row.submission.sha256 or "",
    )


def _cell(value: object) -> str:
    """One line that is text to a spreadsheet too."""
    text = str(value).replace("\r\n", "\n")[:_CELL_CHARS]
    text = f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
    return text.replace("\r", " ").replace("\n", " ")
