"""results.json: all of a run in one object, whose `version` changes with its shape."""

from typing import IO, Any

import msgspec

from grader.batch.formats import feedback
from grader.batch.records import Options
from grader.store.results import Results, Row

VERSION = 1


def write(results: Results, file: IO[bytes]) -> None:
    """Row by row: a run may be larger than memory."""
    options: Options = results.get("options", Options)
    head = msgspec.json.encode(
        {
            "version": VERSION,
            "kata": results.get("kata", str),
            "boxed": options.boxed,
            "layers": results.get("layers", list[dict[str, Any]]) or [],
            "seeds": options.seeds,
            "feedback": options.feedback,
            "notes": results.get("notes", list[str]) or [],
        }
    )
    file.write(head[:-1] + b',"submissions":[')
    for number, row in enumerate(results.rows()):
        file.write(b",\n" if number else b"\n")
        file.write(msgspec.json.encode(_submission(row, options.feedback)))
    file.write(b"\n]}\n")


def _submission(row: Row, level: str) -> dict[str, Any]:
    return {
        "who": row.submission.who,
        "slug": row.submission.slug or None,
        "file": row.submission.file or None,
        "sha256": row.submission.sha256,
        "outcome": row.outcome,
        "trouble": row.trouble,
        "boxed": row.boxed,
        "gradings": [
            {"seed": grading.seed, "verdict": feedback.shown(grading.found, level)}
            for grading in row.gradings
        ],
    }
