"""The pages of `kata verify` and `kata doctor`."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from grader.practice.doctor import Symptom
from grader.views.plain import counted, paint

if TYPE_CHECKING:
    from grader.exam.selfcheck import Finding, Mutated  # which imports torch


def of_kata(slug: str, found: "Sequence[Finding]", colour: bool) -> list[str]:
    """One line when all is well, and one more for everything that is not."""
    good = all(finding.ok for finding in found)
    bugs = [finding for finding in found if finding.bug is not None]
    named = sum(finding.ok for finding in bugs)
    passes = all(finding.ok for finding in found if finding.bug is None)
    reference = "the solution passes" if passes else "the solution does not pass"
    mark = _mark(good, colour)
    lines = [f"{mark} {slug}: {reference}, {named} of {counted(len(bugs), 'bug')} caught and named"]
    for finding in found:
        if not finding.ok:
            lines.append(f"    {finding.bug or 'solution'}: {finding.message}")
    return lines


def total(found: "Sequence[Finding]") -> str:
    wrong = sum(not finding.ok for finding in found)
    return f"{len(found) - wrong} of {len(found)} as they should be."


def of_edits(edits: "Mutated", colour: bool) -> list[str]:
    """One line when every edit that passes is accounted for, and one more for each that is not."""
    mark = _mark(edits.ok, colour)
    lines = [
        f"{mark} {edits.slug}: {edits.caught} of {counted(edits.made, 'edit')} caught, "
        f"{edits.named} by name; {edits.spared} rightly pass"
    ]
    lines += [f"    passes: {edit}" for edit in edits.survivors]
    return [*lines, *(f"    is listed as passing and does not: {edit}" for edit in edits.stale)]


def all_edits(found: "Sequence[Mutated]") -> str:
    made, caught, named = (
        sum(e.made for e in found),
        sum(e.caught for e in found),
        sum(e.named for e in found),
    )
    left = sum(len(edits.survivors) for edits in found)
    return f"{caught} of {counted(made, 'edit')} caught, {named} by name; {left} pass unexplained."


def _mark(good: bool, colour: bool) -> str:
    return paint("✓ ok   ", "green", colour) if good else paint("✗ wrong", "bold red", colour)


def machine(symptoms: Sequence[Symptom], width: int, colour: bool) -> list[str]:
    """What was found of each thing looked at; the last line says whether grading works here."""
    lines = []
    column = max(len(symptom.name) for symptom in symptoms)
    indent = column + 12
    for symptom in symptoms:
        if symptom.ok:
            mark = paint("✓ ok     ", "green", colour)
        elif symptom.needed:
            mark = paint("✗ missing", "bold red", colour)
        else:
            mark = paint("– without", "dim", colour)
        first, *rest = textwrap.wrap(symptom.found, max(24, width - indent)) or [""]
        lines.append(f"{mark} {symptom.name:{column}}  {first}")
        lines += [" " * indent + line for line in rest]
    missing = [symptom.name for symptom in symptoms if symptom.needed and not symptom.ok]
    end = f"To mend first: {', '.join(missing)}." if missing else "Ready to grade."
    return [*lines, "", end]
