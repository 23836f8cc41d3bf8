"""gradescope/WHO.json: what Gradescope reads as /autograder/results/results.json, for one person.

A point a check, or with `score` a test a part; a kata that was not handed in, or could not be
judged, costs as many points as it has checks. Students see these texts, so they tell what the
feedback tells, and as plain text: Gradescope would else read them as Markdown or HTML.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from grader.batch import feedback, judged
from grader.batch.feedback import Item, Told
from grader.batch.judged import Judged
from grader.batch.records import Results


def files(results: Results, told: Told) -> Iterator[tuple[str, str, str]]:
    for who, some in judged.people(results):
        yield who, ".json", msgspec.json.encode(_submission(some, told)).decode() + "\n"


def _submission(some: list[Judged], told: Told) -> dict[str, Any]:
    return {
        "output": "\n".join(f"{one.slug or 'no kata'}: {feedback.summary(one)}" for one in some),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "execution_time": round(sum(one.seconds for one in some), 3),
        "tests": [_test(one, item) for one in some for item in feedback.items(one, told)],
    }


def _test(one: Judged, item: Item) -> dict[str, Any]:
    named = ": ".join(filter(None, (one.slug, item.part, item.name if item.part else "")))
    return {
        "name": named if item.name != item.part else f"{one.slug}: {item.part}",
        "status": "passed" if item.right else "failed",
        "score": item.passed,
        "max_score": item.of,
        "output": item.text,
        "visibility": "visible",
    }
