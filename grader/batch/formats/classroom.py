"""classroom/WHO.json: what a test runner of GitHub Classroom's autograding hands to its reporter,
which takes it in base64.

The reporter prints names and messages into the log of a workflow, where a line that begins with
`::` is a command: they tell what the feedback tells, without such lines.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from grader.batch import feedback, judged
from grader.batch.feedback import Item, Told
from grader.batch.judged import Judged
from grader.batch.records import Result, Results

_VERSION = 1


def files(results: Results, told: Told) -> Iterator[tuple[str, str, str]]:
    for who, some in judged.people(results):
        yield who, ".json", msgspec.json.encode(_runner(some, told)).decode() + "\n"


def _runner(some: list[Judged], told: Told) -> dict[str, Any]:
    items = [(one, item) for one in some for item in feedback.items(one, told)]
    status = "pass"
    if not all(one.outcome is Result.PASSED for one in some):
        judgeable = any(item.part is not None for _, item in items)
        status = "fail" if judgeable else "error"
    return {
        "version": _VERSION,
        "status": status,
        "max_score": sum(item.of for _, item in items),
        "tests": [_test(one, item) for one, item in items],
    }


def _test(one: Judged, item: Item) -> dict[str, Any]:
    status = "pass" if item.right else "error" if item.part is None else "fail"
    return {
        "name": _harmless(f"{one.slug or 'no kata'}: {item.name}"),
        "status": status,
        "score": item.passed,
        "message": _harmless(item.text) or None,
        "test_code": "",
        "filename": _harmless(one.row.submission.file),
        "line_no": 0,
        "execution_time": 0,
    }


def _harmless(text: str) -> str:
    """Without what a workflow's log takes for a command."""
    return text.replace("::", ": :").replace("##[", "# #[")
