"""annotations.txt: GitHub Actions' annotations; a step of a workflow that prints the file shows
them beside the code. They are seen by who reads the repository, so they tell what the feedback
tells.
"""

from typing import IO

from grader.batch import feedback, judged
from grader.batch.feedback import Told
from grader.batch.judged import Judged, bug_of
from grader.batch.records import Result, Results

_SHOWN = 10  # errors of one step; GitHub leaves out the rest without a word
_CHARS = 1000


def write(results: Results, told: Told, file: IO[bytes]) -> None:
    shown = passed = of = 0
    for one in judged.each(results):
        of += 1
        passed += one.outcome is Result.PASSED
        if one.outcome is not Result.PASSED and shown < _SHOWN:
            shown += 1
            file.write(_command("error", _title(one), _message(one, told), one).encode())
    left = of - passed - shown
    more = f" {left} more that did not pass are not shown here." if left else ""
    text = f"{passed} of {of} submissions passed.{more}"
    file.write(_command("notice", "kata grade", text).encode())


def _title(one: Judged) -> str:
    return f"{one.who}: {one.slug}" if one.slug else one.who


def _message(one: Judged, told: Told) -> str:
    lines = [feedback.summary(one), feedback.trouble(one, told)]
    if told is not Told.SCORE:
        lines += [f"{bug.title}." for id in one.bugs if (bug := bug_of(one.slug, id))]
    return "\n".join(dict.fromkeys(filter(None, lines)))


def _command(kind: str, title: str, message: str, one: Judged | None = None) -> str:
    properties = {"title": title}
    if one is not None and one.row.submission.file:
        properties = {"file": one.row.submission.file, **properties}
    said = ",".join(f"{key}={_property(value[:200])}" for key, value in properties.items())
    return f"::{kind} {said}::{_data(message[:_CHARS])}\n"


def _data(text: str) -> str:
    """What Actions' own toolkit escapes in a message (actions/toolkit, packages/core, command)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
