"""export: the bank for Anki, and everything as JSON."""

from pathlib import Path

import click

from grader.cli import common, terminal
from grader.practice import clock
from grader.store import Store
from grader.views.plain import counted

_DRAW = 0  # the numbers of numeric questions; the same in every export

_force = click.option("--force", is_flag=True, help="Replace FILE if it is there.")
_path = click.Path(path_type=Path)


@click.group("export")
def export_command() -> None:
    """Write what is in here for other programs."""


@export_command.command("anki")
@click.argument("path", metavar="FILE", type=_path)
@_force
def anki_command(path: Path, force: bool) -> None:
    """The questions as a text file for Anki. Importing a newer one keeps the scheduling."""
    from grader.recall import bank, numbers
    from grader.recall.quiz import filled
    from grader.views import anki

    questions = [
        filled(question, numbers.drawn(question.numeric, _DRAW)) if question.numeric else question
        for question in bank.load()
    ]
    common.write(path, anki.text(questions).encode(), force)
    terminal.say(
        f"{path} holds {counted(len(questions), 'question')}.",
        "In Anki: File, Import, and choose it; again after an update, which keeps what you know.",
    )


@export_command.command("json")
@click.argument("path", metavar="[FILE]", type=_path, required=False)
@_force
def json_command(path: Path | None, force: bool) -> None:
    """All that is stored, and the questions, as one JSON object, to FILE or to stdout."""
    import msgspec

    from grader.recall import export

    with Store.open(create=False) as store:
        found = msgspec.json.encode(export.everything(store, clock.now()))
    if path is None:
        terminal.say_json(found)
        return
    common.write(path, msgspec.json.format(found, indent=1) + b"\n", force)
    terminal.say(
        f"{path} holds it all.", "On another machine `kata import` joins it to what is there."
    )
