"""results.json: all of a run in one object, for who grades. results.schema.json describes it; its
`version` changes when that does other than by new fields."""

from typing import IO, Any

import msgspec

from grader.batch import judged
from grader.batch.feedback import Told
from grader.batch.judged import Judged
from grader.batch.records import Options, Results

VERSION = 1


def write(results: Results, told: Told, file: IO[bytes]) -> None:
    """Row by row: a run may be larger than memory."""
    options = results.get("options", Options) or Options()
    head = msgspec.json.encode(
        {
            "version": VERSION,
            "kata": results.get("kata", str),
            "boxed": options.boxed,
            "layers": results.get("layers", list[dict[str, Any]]) or [],
            "seeds": options.seeds,
            "feedback": told,
            "notes": results.get("notes", list[str]) or [],
        }
    )
    file.write(head[:-1] + b',"submissions":[')
    for number, one in enumerate(judged.each(results)):
        file.write(b",\n" if number else b"\n")
        file.write(msgspec.json.encode(_submission(one)))
    file.write(b"\n]}\n")


def _submission(one: Judged) -> dict[str, Any]:
    passed, of = one.points
    return {
        "who": one.who,
        "slug": one.slug or None,
        "file": one.row.submission.file or None,
        "sha256": one.row.submission.sha256,
        "outcome": one.outcome,
        "level": one.level,
        "checks_passed": passed,
        "checks": of,
        "bugs": one.bugs,
        "tampered": one.tampered,
        "marks": one.marks,
        "trouble": one.trouble,
        "boxed": one.row.boxed,
        "gradings": [
            {"seed": grading.seed, "verdict": msgspec.Raw(grading.verdict.encode())}
            for grading in one.row.gradings
        ],
    }
