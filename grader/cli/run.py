"""run: grade one file."""

from functools import partial
from pathlib import Path

import click

from grader import catalog, content
from grader.cli import common, terminal
from grader.errors import UsageFault
from grader.exam.verdict import Part
from grader.practice import clock, contract, current, grading
from grader.practice.workspace import Workspace, shown
from grader.recall import after
from grader.store import Store
from grader.store.attempts import Reason
from grader.views import json, result  # before the submission runs, as what is needed after it
from grader.views.plain import counted, when


@click.command("run")
@click.argument("slug", type=common.Slug(), required=False)
@click.option("--file", metavar="PATH", type=click.Path(path_type=Path), help="Grade this file.")
@click.option("--part", type=common.PartName(), help="Run this part alone; never a pass.")
@click.option("--check", type=common.CheckName(), help="Run this check alone; never a pass.")
@click.option("--seed", type=click.IntRange(0), help="Draw the inputs of an earlier run again.")
@click.option("--solution", is_flag=True, help="Grade the reference solution.")
@click.option("--more", is_flag=True, help="Say how a mistake is mended, and where values differ.")
@click.option("--all", "all_", is_flag=True, help="Grade every kata that is begun, a line each.")
@common.as_json
@common.in_workspace
def run_command(
    slug: str | None,
    file: Path | None,
    part: str | None,
    check: str | None,
    seed: int | None,
    solution: bool,
    more: bool,
    all_: bool,
    json_: bool,
    workspace: Path | None,
) -> int:
    """Grade SLUG, or the current kata, or one whose file was edited since that was begun."""
    if all_:
        if solution or any(word is not None for word in (slug, file, part, check)):
            raise UsageFault("--all grades all that is begun: leave out SLUG and other choices.")
        return _all(common.find_workspace(workspace), seed, json_)
    if part is not None and check is not None:
        raise UsageFault("--part and --check exclude each other: a check is of one part.")
    slug, path, own = _target(slug, file, solution, workspace)
    then = None if own is None else partial(current.make, slug=slug, space=own)
    only = None if part is None else _part(slug, part)
    if check is not None:
        check = contract.check(slug, check)
        only = contract.checks(slug)[check]
    with grading.Bench() as bench:
        graded = grading.grade(
            slug,
            path,
            partial(bench.judge, seed=seed, only=only, check=check),
            name=shown(path),
            now=clock.now(),
            keep=Reason.RUN if own else None,
            then=lambda *_: then,
        )
    if json_:
        terminal.say_json(graded.verdict.as_json())
    else:
        about = "the reference solution" if solution else shown(path)
        rows = terminal.rows()
        terminal.say(*page(graded, about, more, terminal.width(), terminal.colour(), rows))
    if graded.trouble:
        terminal.note(f"note: this attempt is not stored. {graded.trouble}")
    return 0 if graded.verdict.passed else 1


def _all(space: Workspace, seed: int | None, json_: bool) -> int:
    """Grade every kata that is begun; 1 while one of them does not pass."""
    slugs = current.begun(space)
    if not slugs:
        raise UsageFault(f"Nothing is edited in {space.folder}: `kata start SLUG` begins.")
    verdicts = []
    with grading.Bench() as bench:
        for number, slug in enumerate(slugs):
            path = space.path(slug)
            with terminal.progress(number, len(slugs), slug):
                judge = partial(bench.judge, seed=seed)
                graded = grading.attempt(slug, path, judge, Reason.RUN, on_task=False)
            verdicts.append(graded.verdict)
            if not json_:
                line = result.in_a_line(graded.verdict, terminal.width(), terminal.colour())
                terminal.say(line)
            if graded.trouble:
                terminal.note(f"note: this attempt is not stored. {graded.trouble}")
    passed = sum(verdict.passed for verdict in verdicts)
    if json_:
        terminal.say_json(json.verdicts(verdicts))
    else:
        terminal.say(f"{passed} of {counted(len(verdicts), 'kata')} passed.")
    return 0 if passed == len(verdicts) else 1


def _target(
    slug: str | None, file: Path | None, solution: bool, workspace: Path | None
) -> tuple[str, Path, Workspace | None]:
    """Kata, file, and its workspace if it is the learner's own file, whose attempts count."""
    if solution and file is not None:
        raise UsageFault("--solution and --file exclude each other.")
    if slug is None:
        if solution or file is not None:
            raise UsageFault("Which kata? Say `kata run SLUG` with --file and --solution.")
        slug = current_kata(common.find_workspace(workspace))
    if solution:
        return slug, content.solution(slug), None
    if file is None:
        space = common.find_workspace(workspace)
        return slug, space.existing(slug), space
    try:
        space = common.find_workspace(workspace)
        return slug, file, space if file.samefile(space.path(slug)) else None
    except (OSError, UsageFault):  # no workspace, or no such file in it
        return slug, file, None


def current_kata(space: Workspace) -> str:
    """The kata meant without SLUG; a note where it is another than before."""
    with Store.open(create=False) as store:
        now = current.read(store)
    slug = current.meant(now, space)
    if now is not None and slug != now.slug:
        terminal.note(f"{shown(space.path(slug))} was edited since: it is the current kata now.")
    return slug


def _part(slug: str, text: str) -> Part:
    there = contract.rules(slug)
    try:
        part = Part(text.lower())
    except ValueError:
        part = None
    if part not in there:
        raise UsageFault(f"{slug} has no part '{text}'. Its parts: {', '.join(there)}.")
    return part


def page(
    graded: grading.Graded,
    file: str,
    more: bool,
    width: int,
    colour: bool,
    rows: int | None = None,
) -> list[str]:
    """The page of one grading."""
    verdict, recorded = graded.verdict, graded.recorded
    found = after.after(graded)
    around = result.Around(
        card=catalog.card(verdict.slug),
        bugs={bug.id: bug for bug in catalog.entry(verdict.slug).bugs},
        file=file,
        attempt=recorded.number if recorded else None,
        elapsed_s=recorded.elapsed_s if recorded else None,
        best_s=found.best_s,
        next_slug=found.next_slug,
        due_again=when(recorded.due, clock.now()) if recorded and recorded.due else None,
        questions=found.questions,
        more=more,
        rows=rows,
    )
    return result.page(verdict, around, width, colour)
