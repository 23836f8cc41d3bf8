"""results.csv: a line a submission, for spreadsheets."""

import csv
import io
from typing import IO

from grader.batch.formats import feedback
from grader.batch.records import Options
from grader.store.results import Results

_HEAD = (
    "who",
    "kata",
    "outcome",
    "checks_passed",
    "checks",
    "mistakes",
    "trouble",
    "file",
    "boxed",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute


def write(results: Results, file: IO[bytes]) -> None:
    options: Options = results.get("options", Options)
    text = io.TextIOWrapper(file, "utf-8", newline="")
    lines = csv.writer(text)
    lines.writerow(_HEAD)
    for row in results.rows():
        one, (passed, made) = row.submission, row.checks
        titles = [feedback.title(one.slug, bug) for bug in row.bugs]
        mistakes = "" if options.feedback == "score" else "; ".join(filter(None, titles))
        boxed = "yes" if row.boxed else "no"
        cells = (one.who, one.slug, row.outcome, passed, made, mistakes, row.trouble, one.file)
        lines.writerow([*map(_cell, cells), boxed])
    text.flush()
    text.detach()


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
