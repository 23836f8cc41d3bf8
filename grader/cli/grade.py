"""run, verify: the commands that grade."""

import sys
from pathlib import Path

import click
import msgspec

from grader import catalog
from grader.cli import common
from grader.errors import KataError, UsageFault
from grader.exam.verdict import Part, Verdict


class _Part(click.ParamType[Part]):
    name = "part"

    def convert(self, value: str, param: object, ctx: object) -> Part:
        try:
            return Part(value.lower())
        except ValueError:
            raise UsageFault(
                f"There is no part '{value}'. The parts are {', '.join(Part)}."
            ) from None


@click.command("run")
@click.argument("slug", type=common.Slug(), required=False)
@click.option("--file", "file", type=click.Path(path_type=Path), help="Grade this file instead.")
@click.option("--part", type=_Part(), help="Only this part.")
@click.option("--seed", type=click.IntRange(0), help="Replay the inputs of an earlier run.")
@click.option("--solution", is_flag=True, help="Grade the reference solution.")
@common.as_json
@common.in_workspace
def run_command(
    slug: str | None,
    file: Path | None,
    part: Part | None,
    seed: int | None,
    solution: bool,
    json_: bool,
    workspace: Path | None,
) -> None:
    """Grade SLUG, or the kata edited last."""
    from grader import content
    from grader.exam import submission
    from grader.practice import contract
    from grader.practice.workspace import shown

    if solution and file is not None:
        raise UsageFault("--solution and --file exclude each other.")
    own: Path | None = None
    if slug is None:
        if file is not None or solution:
            raise UsageFault("Say which kata it is: kata run SLUG --file PATH.")
        slug = common.find_workspace(workspace).latest(catalog.slugs())
    if part is not None and part not in (there := contract.rules(slug)):
        raise UsageFault(f"{slug} has no part '{part}'. It has {', '.join(there)}.")
    if solution:
        path = content.solution(slug)
    else:
        try:
            own = common.find_workspace(workspace).path(slug)
        except UsageFault:
            if file is None:
                raise
        path = file or common.find_workspace(workspace).existing(slug)
        if own is not None and file is not None and not _same(own, file):
            own = None
    source = submission.read(path)
    taken = common.now()
    note = _Notes()
    snapshot = note.keep(slug, source, taken) if own is not None else None

    from grader.exam.examiner import Examiner

    with Examiner() as examiner:
        verdict = examiner.grade(slug, source, shown(path), seed, part)
    if own is not None:
        note.record(verdict, snapshot, taken)
    if json_:
        click.echo(verdict.as_json())
    else:
        _screen(verdict, shown(path) if not solution else "the solution", note)
    if note.text:
        click.echo(f"note: {note.text}", err=True)
    sys.exit(0 if verdict.passed else 1)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


class _Notes:
    """Progress around one run; where it cannot be written the grading goes on without."""

    def __init__(self) -> None:
        self.text = ""
        self.attempt: int | None = None
        self.elapsed_s: float | None = None

    def keep(self, slug: str, source: object, taken: object) -> object:
        from grader.practice.progress import Progress, Reason

        if not isinstance(source, bytes):
            return None
        try:
            with Progress.open(create=True) as progress:
                return progress.keep(slug, source, Reason.RUN, taken)  # type: ignore[arg-type]
        except KataError as error:
            self.text = f"this run is not stored. {error}"
            return None

    def record(self, verdict: Verdict, snapshot: object, taken: object) -> None:
        from grader.practice.progress import Progress

        if self.text:
            return
        try:
            with Progress.open(create=True) as progress:
                recorded = progress.record(verdict, snapshot, taken)  # type: ignore[arg-type]
            self.attempt, self.elapsed_s = recorded.number, recorded.elapsed_s
        except KataError as error:
            self.text = f"this run is not stored. {error}"


def _screen(verdict: Verdict, file: str, note: _Notes) -> None:
    from rich.console import Console

    from grader.render import result

    slugs = [card.slug for card in catalog.cards()]
    place = slugs.index(verdict.slug) + 1
    around = result.Around(
        card=catalog.card(verdict.slug),
        bugs={bug.id: bug for bug in catalog.entry(verdict.slug).bugs},
        file=file,
        attempt=note.attempt,
        elapsed_s=note.elapsed_s,
        next_slug=slugs[place] if place < len(slugs) else None,
    )
    result.show(Console(highlight=False, soft_wrap=False), verdict, around)


@click.command("verify")
@click.argument("slugs", type=common.Slug(), nargs=-1)
@common.as_json
def verify_command(slugs: tuple[str, ...], json_: bool) -> None:
    """Check that each suite passes its solution and names every catalogued bug."""
    from grader.exam.selfcheck import Finding, verify

    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if not json_:
            what = finding.bug or "the solution"
            word = "ok   " if finding.ok else "WRONG"
            click.echo(
                f"{word} {finding.slug}: {what}" + (f" – {finding.message}" * (not finding.ok))
            )

    good = verify(list(slugs) or [card.slug for card in catalog.cards()], report)
    if json_:
        click.echo(msgspec.json.encode({"ok": good, "findings": findings}))
    else:
        wrong = sum(not f.ok for f in findings)
        click.echo(f"{len(findings) - wrong} of {len(findings)} as they should be.")
    sys.exit(0 if good else 1)
