"""run: grade one file."""

from functools import partial
from pathlib import Path

import click

from grader import catalog, content
from grader.cli import common, terminal
from grader.errors import UsageFault
from grader.exam.verdict import Level, Part, Verdict
from grader.practice import clock, grading
from grader.practice.workspace import shown
from grader.store import Store, StoreError
from grader.store.attempts import Reason, Recorded
from grader.views import result  # before the submission runs, as all that is needed after it
from grader.views.plain import when


@click.command("run")
@click.argument("slug", type=common.Slug(), required=False)
@click.option("--file", metavar="PATH", type=click.Path(path_type=Path), help="Grade this file.")
@click.option("--part", metavar="PART", help="Run this part alone.")
@click.option("--seed", type=click.IntRange(0), help="Draw the inputs of an earlier run again.")
@click.option("--solution", is_flag=True, help="Grade the reference solution.")
@common.as_json
@common.in_workspace
def run_command(
    slug: str | None,
    file: Path | None,
    part: str | None,
    seed: int | None,
    solution: bool,
    json_: bool,
    workspace: Path | None,
) -> int:
    """Grade SLUG, or the kata whose file was edited last."""
    slug, path, own = _target(slug, file, solution, workspace)
    only = None if part is None else _part(slug, part)
    with grading.Bench() as bench:
        graded = grading.grade(
            slug,
            path,
            partial(bench.judge, seed=seed, only=only),
            name=shown(path),
            now=clock.now(),
            keep=Reason.RUN if own else None,
        )
    if json_:
        terminal.say_json(graded.verdict.as_json())
    else:
        about = "the reference solution" if solution else shown(path)
        _say(graded.verdict, about, graded.recorded)
    if graded.trouble:
        terminal.note(f"note: this attempt is not stored. {graded.trouble}")
    return 0 if graded.verdict.passed else 1


def _target(
    slug: str | None, file: Path | None, solution: bool, workspace: Path | None
) -> tuple[str, Path, bool]:
    """Kata, file, and whether that is the learner's own file, whose attempts count."""
    if solution and file is not None:
        raise UsageFault("--solution and --file exclude each other.")
    if slug is None:
        if solution or file is not None:
            raise UsageFault("Which kata? Say `kata run SLUG` with --file and --solution.")
        slug = common.find_workspace(workspace).latest(catalog.slugs())
    if solution:
        return slug, content.solution(slug), False
    if file is None:
        return slug, common.find_workspace(workspace).existing(slug), True
    try:
        own = file.samefile(common.find_workspace(workspace).path(slug))
    except (OSError, UsageFault):  # no workspace, or no such file in it
        own = False
    return slug, file, own


def _part(slug: str, text: str) -> Part:
    from grader.practice import contract

    there = contract.rules(slug)
    try:
        part = Part(text.lower())
    except ValueError:
        part = None
    if part not in there:
        raise UsageFault(f"{slug} has no part '{text}'. Its parts: {', '.join(there)}.")
    return part


def _say(verdict: Verdict, file: str, recorded: Recorded | None) -> None:
    around = result.Around(
        card=catalog.card(verdict.slug),
        bugs={bug.id: bug for bug in catalog.entry(verdict.slug).bugs},
        file=file,
        attempt=recorded.number if recorded else None,
        elapsed_s=recorded.elapsed_s if recorded else None,
        next_slug=_next(verdict.slug) if verdict.passed else None,
        due_again=when(recorded.due, clock.now()) if recorded and recorded.due else None,
    )
    terminal.say(*result.page(verdict, around, terminal.width(), terminal.colour()))


def _next(slug: str) -> str | None:
    """The nearest kata after this one, in teaching order and round again, not passed yet."""
    try:
        with Store.open(create=False) as store:
            standings = store.attempts.standings()
    except StoreError:
        standings = {}
    done = {slug, *(s for s, standing in standings.items() if standing.level is Level.COMPLETE)}
    order = [card.slug for card in catalog.cards()]
    place = order.index(slug)
    return next((s for s in order[place:] + order[:place] if s not in done), None)
