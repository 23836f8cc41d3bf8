"""backup: copies of the progress file."""

import click

from grader.cli import common, terminal
from grader.errors import UsageFault
from grader.store import Store
from grader.views import backups, json


@click.command("backup")
@click.option(
    "--restore",
    metavar="[DATE]",
    is_flag=False,
    flag_value="",
    help="Bring one back: that of DATE, as --list names it, or the newest.",
)
@click.option("--list", "list_", is_flag=True, help="All there are.")
@common.as_json
def backup_command(restore: str | None, list_: bool, json_: bool) -> None:
    """Copy all that is stored, or bring a copy back.

    The first write of each day makes a copy by itself; those of the last seven days are kept, and
    every one made by this command. What stands there before a --restore is kept too.
    """
    if restore is not None and list_:
        raise UsageFault("--restore and --list exclude each other.")
    if json_ and not list_:
        raise UsageFault("--json goes with --list.")
    if restore is not None:
        terminal.say(*backups.restored(Store.restore(restore)))
    elif list_:
        found = Store.backups()
        if json_:
            terminal.say_json(json.backups(found))
        else:
            terminal.say(*backups.listing(found, terminal.colour()))
    else:
        if not Store.is_there():
            raise UsageFault("Nothing is stored yet, so there is nothing to copy.")
        with Store.open(create=False) as store:
            terminal.say(*backups.made(store.back_up()))
