"""bug: a planted mistake to find and mend."""

import click

from grader import catalog
from grader.cli import ask, common, terminal
from grader.errors import UsageFault
from grader.exam import submission
from grader.exam.verdict import Trouble
from grader.practice import clock, hunt, repetition
from grader.practice.hunt import Hunt
from grader.store import Store
from grader.store.memory import Rating
from grader.store.settings import Settings


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
    with Store.open(create=False) as store:
        found = _found(slug, store.settings, new=random_)
    wanted = check or hint or give_up or diagnosis is not None
    if found is None and wanted:
        raise UsageFault(
            "No hunt is open" + (f" on {slug}." if slug else ". `kata bug` plants one.")
        )
    if found is None:
        return _plant(slug, _seed(seed))
    if hint:
        return _hint(found)
    if give_up:
        return _reveal(found, right, gave_up=True)
    if found.mended is None:
        found = _grade(found, diagnosis, check or diagnosis is not None)
    return _reveal(found, right) if found is not None and found.mended else 1


def _found(slug: str | None, settings: Settings, *, new: bool) -> Hunt | None:
    """The open hunt that is meant."""
    if slug is not None and new:
        raise UsageFault("SLUG and --random exclude each other.")
    if new:
        return None
    slugs = [slug] if slug else catalog.slugs()
    opened = [found for s in slugs if (found := hunt.opened(s, settings)) is not None]
    return max(opened, key=lambda found: found.planted_at, default=None)


def _seed(seed: int | None) -> int:
    import random

    return random.SystemRandom().randrange(10**6) if seed is None else seed


def _plant(slug: str | None, seed: int) -> int:
    from grader.views import hunting

    card = catalog.card(slug) if slug else _pick(seed)
    bug = hunt.chosen_bug(card.slug, seed)
    now = clock.now()
    with Store.open(create=True) as store:
        found = hunt.plant(card.slug, bug, store.settings, now)
        store.attempts.saw_solution(card.slug, now)  # all but a line of it
    terminal.say(
        *hunting.begun(
            card,
            found.file,
            hunt.minutes(card),
            terminal.width(),
            terminal.colour(),
        )
    )
    terminal.tell(
        f"Next: `kata bug {card.slug}` when it is mended; `--hint` helps, `--give-up` ends it."
    )
    return 0


def _pick(seed: int) -> catalog.Card:
    """Due and weak hunts first, those on solved katas before unseen ones."""
    from grader.interview import choice, record

    known = record.read(clock.now().astimezone())
    with Store.open(create=False) as store:
        free = [c for c in catalog.cards() if hunt.opened(c.slug, store.settings) is None]
    order = choice.shuffled(
        free,
        seed,
        lambda card: f"bug:{card.slug}",
        lambda card: choice.hunt_weight(card, known, choice.Grade.SENIOR),
    )
    if not order and not free:
        raise UsageFault("A hunt is open on every kata. `kata bug SLUG` goes on with one.")
    return (order or free)[0]


def _hint(found: Hunt) -> int:
    rung = min(found.hints + 1, hunt.HINTS)
    with Store.open(create=True) as store:
        hunt.remember(found.with_(hints=rung), store.settings)
    text = hunt.hint(found.slug, found.bug, rung)
    terminal.tell(f"Hint {rung} of {hunt.HINTS}: {text}")
    return 0


def _grade(found: Hunt, diagnosis: str | None, check: bool) -> Hunt | None:
    """The hunt after grading; None if nothing was graded."""
    from grader.views import hunting

    source = submission.read(found.path)
    if not check and source == hunt.planted(found.slug, found.bug).encode():
        terminal.tell(f"The hunt on {found.slug} is open, and its file is as it was planted:")
        terminal.say(f"  {found.file}")
        terminal.tell("Mend it first; `--check` grades it all the same.")
        return None
    found = _diagnosed(found, diagnosis)
    taken = clock.now()

    from grader.exam.examiner import Examiner  # imports torch

    with Examiner() as examiner:
        verdict = examiner.grade(found.slug, source, found.file)
    terminal.say(*hunting.graded(verdict, terminal.width(), terminal.colour()), "")
    if not verdict.passed or isinstance(source, Trouble):
        terminal.tell(f"✗ Not mended yet. Next: `kata bug {found.slug}` again, or `--hint`.")
        return found
    found = found.with_(mended=taken.isoformat())
    with Store.open(create=True) as store:
        hunt.remember(found, store.settings)
    return found


def _diagnosed(found: Hunt, diagnosis: str | None) -> Hunt:
    """Ask for the diagnosis and store it before anything is graded. One given before stays,
    unless it is replaced on a terminal or by the option."""
    there = found.answer is not None
    keeps = f" (Enter keeps: {found.diagnosis})" if there else ""
    while not diagnosis:
        if there and not ask.interactive():
            return found
        try:
            diagnosis = ask.line(f"What is wrong, in one line?{keeps} ")
        except ask.Left:
            raise UsageFault("A diagnosis comes before the grading; nothing was graded.") from None
        if there and not diagnosis:
            return found
    now = clock.now()
    with Store.open(create=True) as store, store.transaction():
        id = store.memory.answer(f"bug:{found.slug}", diagnosis, now, seconds=found.seconds(now))
        found = found.with_(answer=id, diagnosis=diagnosis)
        hunt.remember(found, store.settings)
    return found


def _reveal(found: Hunt, right: bool | None, *, gave_up: bool = False) -> int:
    """Show the bug, have the diagnosis judged, schedule the next hunt."""
    from grader.views import hunting

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
    rating = hunt.rating(
        seconds=found.seconds(now),
        par_s=60.0 * hunt.minutes(catalog.card(found.slug)),
        right=bool(right),
        hints=found.hints,
        gave_up=gave_up,
    )
    _schedule(found, rating)
    return 1 if gave_up else 0


def _judged() -> bool:
    try:
        return ask.choice("Did your diagnosis name it? [y/n] ", ("y", "n"), "") == "y"
    except ask.Left:
        raise UsageFault("The hunt waits for this answer: `kata bug` asks again.") from None


def _schedule(found: Hunt, rating: Rating) -> None:
    from grader.views import hunting
    from grader.views.plain import when

    now = clock.now()
    with Store.open(create=True) as store, store.transaction():
        card = repetition.rate(store.memory, f"bug:{found.slug}", rating, now, found.answer)
        hunt.close(found.slug, store.settings)
    due = when(card.due, now)
    terminal.tell("", hunting.closed(rating.name.lower(), found.seconds(now), due))
