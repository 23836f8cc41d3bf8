"""import: another machine's record."""  # noqa: N999 – a command is called as its file is

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from grader.cli import terminal
from grader.errors import UsageFault
from grader.store import Store
from grader.views import joined as pages


@click.command("import")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
def import_command(path: Path) -> None:
    """Join what FILE holds, which `kata export json FILE` wrote on another machine, to what is
    stored here.

    Attempts, kept versions, answers, ratings and mocks of both are there afterwards, once each:
    importing again changes nothing, and it does not matter which machine imports first. Schedules
    follow from the ratings of both. Open hunts and the current kata stay with their machine.
    """
    from grader.recall import joined
    from grader.store.database import file

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageFault(f"{path} cannot be read: {error.strerror}.") from error
    try:
        record = joined.read(content)
        mocks = file().parent / "interviews"
        if not Store.is_there():  # what cannot be joined leaves no store behind
            with Store.open(create=False) as trial:
                joined.join(trial, record, _check_mock, mocks)
        with Store.open(create=True) as store:
            done = joined.join(store, record, _check_mock, mocks)
    except UsageFault as error:
        raise UsageFault(f"{path} cannot be imported, and nothing was changed: {error}") from error
    terminal.tell(*pages.page(path, done))


def _check_mock(plan: str, happened: Sequence[tuple[float, str, dict[str, Any]]]) -> None:
    from grader.interview import events, paper

    stored = [(clock_s, events.decode(kind, data)) for clock_s, kind, data in happened]
    events.State.of(paper.decode(plan), stored)
