"""hint: the next of the ladder, noted as seen."""

import click

from grader.cli import common, terminal
from grader.practice import hints
from grader.views import mistake
from grader.views.plain import wrapped


@click.command("hint")
@common.slug_or_current
def hint_command(slug: str) -> None:
    """The next hint for SLUG, or the current kata; a new round begins the ladder anew.

    It begins with what failed last. The ladder ends with how to mend that, if it was named.
    """
    terminal.say(*next_hint(slug))


def next_hint(slug: str) -> list[str]:
    """The lines of the next rung, which is noted as seen."""
    ladder, rung = hints.climb(slug)
    texts = []
    if ladder.failed:
        texts.append(f"Your last run: {ladder.failed}")
    if ladder.bug is not None and ladder.bug.question is not None:
        texts.append(f"It is drilled by `{mistake.drilled(ladder.bug.question)}`.")
    if rung is not None:
        texts.append(f"Hint {rung} of {len(ladder.rungs)}: {ladder.rungs[rung - 1]}")
    else:
        texts += [f"{number}. {text}" for number, text in enumerate(ladder.rungs, 1)]
        texts.append(f"These were all. `kata solution {slug}` shows the reference.")
    return [line for text in texts for line in wrapped(text, terminal.width())]
