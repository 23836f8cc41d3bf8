"""The page of `kata history`."""

from collections.abc import Sequence

from grader.store.attempts import Attempt, Snapshot
from grader.views.plain import columns, counted, paint, wrapped
from grader.views.result import alone

_HEAD = ("version", "kept", "by", "lines", "attempts with it")


def page(
    slug: str, snapshots: Sequence[Snapshot], attempts: Sequence[Attempt], width: int, colour: bool
) -> list[str]:
    """Kept versions, oldest first, each with how it fared."""
    if not snapshots and not attempts:
        return [f"Nothing of {slug} is kept yet. `kata start {slug}` begins."]
    head = f"{slug}: {counted(len(attempts), 'attempt')}, {counted(len(snapshots), 'version')} kept"
    lines = [paint(head, "bold", colour), ""]
    if snapshots:
        rows = [_cells(s, [a for a in attempts if a.snapshot == s.number]) for s in snapshots]
        table = columns([_HEAD, *rows], right=frozenset({0, 3}))
        if max(map(len, table)) > width:  # how it fared has a line of its own
            slim = columns([row[:-1] for row in (_HEAD, *rows)], right=frozenset({0, 3}))
            results = [wrapped(row[-1], width, "         ") for row in rows]
            below = zip(slim[1:], results, strict=True)
            table = [slim[0], *(line for row, result in below for line in (row, *result))]
        lines += [paint(table[0], "dim", colour), *table[1:]]
    for attempt in attempts:
        if attempt.snapshot is None:
            lines.append(f"{_result(attempt)}; there was no file to keep")
    return [*lines, "", f"`kata restore {slug} VERSION` brings one back."]


def _cells(snapshot: Snapshot, attempts: list[Attempt]) -> tuple[str, ...]:
    when = snapshot.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    lines = str(len(snapshot.source.splitlines()))
    more = f" (and {len(attempts) - 1} before)" if len(attempts) > 1 else ""
    result = _result(attempts[-1]) + more if attempts else "–"
    return (str(snapshot.number), when, snapshot.reason, lines, result)


def _result(attempt: Attempt) -> str:
    word = "passed" if attempt.passed else "not passed"
    part = f"{alone(attempt.part, attempt.check)} " if attempt.part else ""
    passed, ran = attempt.checks
    return f"{attempt.number}: {part}{word}, {passed} of {ran} checks"
