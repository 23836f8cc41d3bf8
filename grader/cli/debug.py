"""debug: one check again, in this terminal."""

from pathlib import Path

import click

from grader import catalog
from grader.cli import common, terminal
from grader.cli.run import current_kata
from grader.errors import UsageFault
from grader.exam import submission
from grader.exam.verdict import Outcome, Verdict
from grader.practice import contract
from grader.practice.workspace import shown
from grader.store import Store


@click.command("debug")
@click.argument("words", nargs=-1, metavar="[SLUG] [CHECK]")
@click.option(
    "--script",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the call as a Python file that runs alone.",
)
@click.option("--seed", type=click.IntRange(0), help="The inputs of another run than the last.")
@common.in_workspace
def debug_command(
    words: tuple[str, ...], script: Path | None, seed: int | None, workspace: Path | None
) -> int:
    """Make one CHECK of SLUG again with the inputs of the last run: print, breakpoint() and
    tracebacks work as in any program, nothing is limited, and it is no attempt.

    CHECK is a name from the page of `kata run` ("any leading dimensions"), or what that page led
    with; SLUG the current kata.
    """
    space = common.find_workspace(workspace)
    slug, wanted = _told(words)
    slug = slug or current_kata(space)
    path = space.existing(slug)
    with Store.open(create=False) as store:
        last = store.attempts.last_verdict(slug)
    name = _check(slug, wanted, last)
    if seed is None:
        seed = 0 if last is None else last.seed
    common.on_task(slug)
    source = submission.read(path)
    from grader.exam.debugging import Debugger, Left

    with Debugger() as debugger:
        terminal.say(f"{slug}: {name.replace('_', ' ')} · --seed {seed}")
        try:
            found = debugger.debug(slug, source, shown(path), name, seed)
        except Left:
            terminal.say("Left.")
            return 1
        finally:
            common.on_task(slug)
    from grader.views import debugged

    terminal.say(*debugged.page(found, terminal.width(), terminal.colour()))
    if script is not None:
        if found.call is None:
            raise UsageFault("The check has made no call: there is nothing to write.")
        from grader.exam import script as scripts

        try:
            written = scripts.write(found, slug, path, script)
        except OSError as error:
            raise UsageFault(f"{script} cannot be written: {error.strerror}.") from error
        terminal.tell(f"Written: {', '.join(map(shown, written))}.")
    return 0 if found.check is not None and found.check.outcome is Outcome.PASSED else 1


def _told(words: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Kata and check: either may be left out, and a check's name may come as several words."""
    if not words:
        return None, None
    slugs = catalog.slugs()
    if words[0] in slugs or (len(words) > 1 and any(slug.startswith(words[0]) for slug in slugs)):
        return catalog.find(words[0]), " ".join(words[1:]) or None
    return None, " ".join(words)


def _check(slug: str, wanted: str | None, last: Verdict | None) -> str:
    """The name of the check that is meant. Raises UsageFault."""
    if wanted is not None:
        return contract.check(slug, wanted)
    if last is None:
        raise UsageFault(f"{slug} was not run yet: `kata run {slug}`, or name a check.")
    names = contract.checks(slug)
    failed = [c.name for c in last.checks if c.outcome is Outcome.FAILED]
    failed += [c.name for c in last.checks if c.outcome is Outcome.ERROR]
    first = last.checks[last.headline].name if last.headline is not None else None
    name = first or next((name for name in failed if name in names), None)
    if name is None:
        raise UsageFault(f"Nothing failed in the last run of {slug}: name a check to debug.")
    return name
