"""One grading as one screen."""

from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from grader.catalog import Bug, Card
from grader.exam.verdict import CORE, Check, Level, Outcome, Part, Verdict

_SHOWN_FAILURES = 2
_SHOWN_LINES = 8


@dataclass(frozen=True)
class Around:
    """What the screen says beside the verdict. Times in seconds."""

    card: Card
    bugs: dict[str, Bug]
    file: str
    attempt: int | None = None
    elapsed_s: float | None = None
    next_slug: str | None = None


def show(console: Console, verdict: Verdict, around: Around) -> None:
    """Print the verdict: parts, first failures with their diagnosis, what to do next."""
    title = Text(f"{verdict.slug} ", style="bold")
    title.append(f"· {around.file}", style="dim")
    console.print(title)
    if verdict.error is not None:
        console.print(f"[bold red]{verdict.error.kind.upper()}[/] ", end="")
        console.print(Text(verdict.error.message))
    ran = [c for c in verdict.checks if c.outcome is not Outcome.ERROR]
    if ran or verdict.error is None:
        _parts(console, verdict)
    _failures(console, verdict, around)
    if not verdict.passed and verdict.output.strip():
        _output(console, verdict.output)
    _footer(console, verdict, around)


def _parts(console: Console, verdict: Verdict) -> None:
    for core in (True, False):
        for part in Part:
            checks = [c for c in verdict.checks if c.part is part]
            if not checks or (part in CORE) is not core:
                continue
            passed = sum(c.outcome is Outcome.PASSED for c in checks)
            if all(c.outcome is Outcome.SKIPPED for c in checks):
                mark, word, style = "–", f"skipped: {checks[0].message}", "dim"
            elif passed == len(checks):
                mark, word, style = "✓", "passed", "green"
            elif not any(c.started for c in checks if c.outcome is not Outcome.PASSED):
                mark, word, style = "·", "not started", "yellow"
            else:
                mark, word, style = "✗", "failed", "red"
            line = f"  {mark} {part:9} {passed}/{len(checks)}  {word}"
            console.print(Text(line, style=style))


def _failures(console: Console, verdict: Verdict, around: Around) -> None:
    failed = [c for c in verdict.checks if c.outcome is Outcome.FAILED and c.started]
    if verdict.error is None:
        failed += [c for c in verdict.checks if c.outcome is Outcome.ERROR]
    # A named mistake says more than the same mistake's unnamed consequences.
    failed.sort(key=lambda c: c.bug is None)
    seen: set[str] = set()
    shown: list[Check] = []
    for check in failed:
        if check.bug is None or check.bug not in seen:
            shown.append(check)
            seen.add(check.bug or check.name)
    for check in shown[:_SHOWN_FAILURES]:
        console.print()
        console.print(f"[bold]{check.part}[/]: {escape(check.name.replace('_', ' '))}")
        lines = check.message.splitlines()[:_SHOWN_LINES]
        console.print(Padding(Text("\n".join(lines)), (0, 0, 0, 2)))
        if check.bug in around.bugs:
            bug = around.bugs[check.bug]
            for word, text in (("why", bug.cause), ("shows as", bug.symptom), ("mend", bug.fix)):
                console.print(Padding(Text(f"{word}: {text}", style="cyan"), (0, 0, 0, 2)))
    if len(failed) > len(shown[:_SHOWN_FAILURES]):
        rest = len(failed) - len(shown[:_SHOWN_FAILURES])
        console.print(f"\n[dim]and {rest} more failed checks (kata run --json shows all)[/]")


def _output(console: Console, output: str) -> None:
    lines = output.rstrip().splitlines()
    console.print("\n[bold]It printed:[/]")
    for line in lines[:5]:
        console.print(Padding(Text(line[:200], style="dim"), (0, 0, 0, 2)))
    if len(lines) > 5:
        console.print(f"[dim]  and {len(lines) - 5} more lines[/]")


def _footer(console: Console, verdict: Verdict, around: Around) -> None:
    slug = verdict.slug
    console.print()
    facts = [f"graded in {verdict.seconds:.2f} s"]
    if around.attempt is not None:
        facts.insert(0, f"attempt {around.attempt}")
    if around.elapsed_s is not None:
        clock = f"{int(around.elapsed_s // 60)}:{int(around.elapsed_s % 60):02d}"
        facts.append(f"{clock} since the start (par {around.card.minutes} min)")
    if not verdict.passed:
        facts.append(f"--seed {verdict.seed} replays it")
    console.print(f"[dim]{' · '.join(facts)}[/]")
    if verdict.passed:
        word = f"part {verdict.only} passed" if verdict.only else "passed, complete"
        after = f"kata show {around.next_slug}" if around.next_slug else "kata list"
        console.print(f"[bold green]✓ {slug}: {word}.[/] Next: {after}")
    elif not verdict.started:
        console.print(
            f"[bold yellow]· {slug}: not started.[/] Next: kata show {slug}, then edit it"
        )
    elif verdict.level is Level.CORE:
        ups = {c.part for c in verdict.checks if c.part not in CORE}
        left = {
            c.part
            for c in verdict.checks
            if c.part in ups and c.outcome not in (Outcome.PASSED, Outcome.SKIPPED)
        }
        console.print(
            f"[bold yellow]✗ {slug}: core complete, {len(left)} of {len(ups)} follow-ups left.[/]"
            f" Next: mend it and kata run {slug}"
        )
    else:
        console.print(f"[bold red]✗ {slug}: not passed.[/] Next: mend it, or kata hint {slug}")
