"""exercism/WHO/SLUG.json: what an Exercism test runner writes as results.json, version 3.

The parts are its tasks, numbered as the kata has them. Students see the messages, which tell what
the feedback tells; `test_code` and `output`, which are optional, would tell more and are left out.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from grader.batch import feedback, judged
from grader.batch.feedback import Told
from grader.batch.judged import Judged
from grader.batch.records import Results
from grader.exam.verdict import Part

_VERSION = 3
_MESSAGE_CHARS = 65_535


def files(results: Results, told: Told) -> Iterator[tuple[str, str, str]]:
    for one in judged.each(results):
        text = msgspec.json.encode(_results(one, told)).decode() + "\n"
        yield one.who, f"/{one.slug or 'no-kata'}.json", text


def _results(one: Judged, told: Told) -> dict[str, Any]:
    found = feedback.items(one, told)
    whole = next((item for item in found if item.part is None), None)
    if whole is not None:
        message = whole.text or feedback.summary(one)
        return {"version": _VERSION, "status": "error", "message": message[:_MESSAGE_CHARS]}
    here = {item.part for item in found}
    tasks = {part: number for number, part in enumerate((p for p in Part if p in here), 1)}
    tests: list[dict[str, Any]] = [
        {
            "name": item.name,
            "status": "pass" if item.right else "fail",
            "message": None
            if item.right
            else (item.text or f"{item.passed} of {item.of} checks pass.")[:_MESSAGE_CHARS],
            "task_id": tasks[item.part],
        }
        for item in found
        if item.part is not None
    ]
    right = all(item.right for item in found)
    return {
        "version": _VERSION,
        "status": "pass" if right else "fail",
        "message": None,
        "tests": tests,
    }
