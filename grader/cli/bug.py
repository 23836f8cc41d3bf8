"""bug: a planted mistake to find and mend."""

import click

from grader import catalog
from grader.cli import common, terminal
from grader.cli.terminal import prompts
from grader.errors import UsageFault
from grader.practice import clock, hunt
from grader.practice.grading import Bench
from grader.practice.hunt import Hunt


@click.command("bug")
@click.argument("slug", type=common.Slug(), required=False)
@click.option("--random", "random_", is_flag=True, help="Plant a new one, in what is due or weak.")
@click.option("--seed", type=click.IntRange(0), help="The same seed plants the same bug.")
@click.option("--check", is_flag=True, help="Grade, even if the file was not changed.")
@click.option("--diagnosis", metavar="TEXT", help="What is wrong, in one line.")
@click.option("--right/--wrong", default=None, help="Whether the diagnosis named the bug.")
@click.option("--hint", is_flag=True, help="How the bug shows; once more: where it is.")
@click.option("--give-up", is_flag=True, help="Show the bug and end the hunt.")
def bug_command(
    slug: str | None,
    random_: bool,
    seed: int | None,
    check: bool,
    diagnosis: str | None,
    right: bool | None,
    hint: bool,
    give_up: bool,
) -> int:
    """Plant a mistake in the solution of SLUG; called again, grade the hunt.

    The file lies in a folder of its own. Before the first grading you say in one line what is
    wrong. Without SLUG: the hunt begun last, or a new one.
    """
    found = _found(slug, new=random_)
    wanted = check or hint or give_up or diagnosis is not None
    if found is None and wanted:
        raise UsageFault(
            "No hunt is open" + (f" on {slug}." if slug else ". `kata bug` plants one.")
        )
    if found is None:
        return _plant(slug, seed)
    if hint:
        found, text = hunt.next_hint(found, clock.now())
        terminal.tell(f"Hint {found.hints} of {hunt.HINTS}: {text}")
        return 0
    if give_up:
        return _reveal(found, right, gave_up=True)
    if found.mended is None:
        found = _grade(found, diagnosis, check or diagnosis is not None)
    return _reveal(found, right) if found is not None and found.mended else 1


def _found(slug: str | None, *, new: bool) -> Hunt | None:
    """The open hunt that is meant."""
    if slug is not None and new:
        raise UsageFault("SLUG and --random exclude each other.")
    if new:
        return None
    opened = hunt.opened()
    if slug is not None:
        return opened.get(slug)
    return max(opened.values(), key=lambda found: found.planted_at, default=None)


def _plant(slug: str | None, seed: int | None) -> int:
    from grader.interview import anew
    from grader.views import hunting

    seed = anew.seed() if seed is None else seed
    card = catalog.card(slug) if slug else anew.hunted(seed)
    found = hunt.plant(card.slug, hunt.chosen_bug(card.slug, seed), clock.now())
    page = hunting.begun(card, found.file, hunt.minutes(card), terminal.width(), terminal.colour())
    terminal.say(*page)
    terminal.tell(
        f"Next: `kata bug {card.slug}` when it is mended; `--hint` helps, `--give-up` ends it."
    )
    return 0


def _grade(found: Hunt, diagnosis: str | None, check: bool) -> Hunt | None:
    """The hunt after grading; None if nothing was graded."""
    from grader.views import hunting

    if found.untouched and not check:
        terminal.tell(f"The hunt on {found.slug} is open, and its file is as it was planted:")
        terminal.say(f"  {found.file}")
        terminal.tell("Mend it first; `--check` grades it all the same.")
        return None
    found = _diagnosed(found, diagnosis)
    with Bench() as bench:
        found, graded = hunt.grade(found, bench.judge, clock.now())
    page = hunting.graded(graded.verdict, terminal.width(), terminal.colour())
    terminal.say(*page, "")
    if graded.trouble:
        raise graded.trouble
    if not found.mended:
        terminal.tell(f"✗ Not mended yet. Next: `kata bug {found.slug}` again, or `--hint`.")
    return found


def _diagnosed(found: Hunt, diagnosis: str | None) -> Hunt:
    """Ask for the diagnosis and store it before anything is graded. One given before stays,
    unless it is replaced on a terminal or by the option."""
    there = found.answer is not None
    keeps = f" (Enter keeps: {found.diagnosis})" if there else ""
    while not diagnosis:
        if there and not prompts.interactive():
            return found
        try:
            diagnosis = prompts.line(f"What is wrong, in one line?{keeps} ")
        except prompts.Left:
            raise hunt.Undiagnosed from None
        if there and not diagnosis:
            return found
    return hunt.diagnose(found, diagnosis, clock.now())


def _reveal(found: Hunt, right: bool | None, *, gave_up: bool = False) -> int:
    """Show the bug, have the diagnosis judged, schedule the next hunt."""
    from grader.views import hunting
    from grader.views.plain import when

    if not gave_up:
        terminal.say(f"✓ {found.slug}: mended.")
    page = hunting.revealed(
        found.bug,
        hunt.change(found.slug, found.bug),
        found.diagnosis,
        terminal.width(),
        terminal.colour(),
    )
    terminal.say(*page)
    if right is None and not gave_up:
        right = _judged()
    now = clock.now()
    closed = hunt.close(found, bool(right), now, gave_up=gave_up)
    due = when(closed.due, now)
    terminal.tell("", hunting.closed(closed.rating.name.lower(), closed.seconds, due))
    return 1 if gave_up else 0


def _judged() -> bool:
    try:
        return prompts.choice("Did your diagnosis name it? [y/n] ", ("y", "n"), "") == "y"
    except prompts.Left:
        raise UsageFault("The hunt waits for this answer: `kata bug` asks again.") from None
