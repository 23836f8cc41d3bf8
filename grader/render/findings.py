"""The pages of `kata verify` and `kata doctor`."""

from collections.abc import Sequence
from typing import Protocol

from grader.practice.machine import Symptom
from grader.render.plain import counted, paint


class Finding(Protocol):
    """What was found of a kata's reference (`bug` None) or of one bug."""

    @property
    def bug(self) -> str | None: ...
    @property
    def ok(self) -> bool: ...
    @property
    def message(self) -> str: ...


def of_kata(slug: str, found: Sequence[Finding], colour: bool) -> list[str]:
    """One line when all is well, and one more for everything that is not."""
    good = all(finding.ok for finding in found)
    mark = paint("✓ ok   ", "green", colour) if good else paint("✗ wrong", "bold red", colour)
    bugs = [finding for finding in found if finding.bug is not None]
    named = sum(finding.ok for finding in bugs)
    passes = all(finding.ok for finding in found if finding.bug is None)
    reference = "the solution passes" if passes else "the solution does not pass"
    lines = [f"{mark} {slug}: {reference}, {named} of {counted(len(bugs), 'bug')} caught and named"]
    for finding in found:
        if not finding.ok:
            lines.append(f"    {finding.bug or 'solution'}: {finding.message}")
    return lines


def total(found: Sequence[Finding]) -> str:
    wrong = sum(not finding.ok for finding in found)
    return f"{len(found) - wrong} of {len(found)} as they should be."


def machine(symptoms: Sequence[Symptom], colour: bool) -> list[str]:
    """A line for each thing looked at; the last says whether grading works here."""
    lines = []
    for symptom in symptoms:
        if symptom.ok:
            mark = paint("✓ ok     ", "green", colour)
        elif symptom.needed:
            mark = paint("✗ missing", "bold red", colour)
        else:
            mark = paint("– without", "dim", colour)
        first, *rest = symptom.found.splitlines() or [""]
        lines += [f"{mark} {symptom.name:11}  {first}", *(" " * 23 + line for line in rest)]
    missing = [symptom.name for symptom in symptoms if symptom.needed and not symptom.ok]
    end = f"To mend first: {', '.join(missing)}." if missing else "Ready to grade."
    return [*lines, "", end]
