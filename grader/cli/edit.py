"""edit: a kata's file in the learner's editor."""

from contextlib import suppress
from pathlib import Path

import click

from grader.cli import common, terminal
from grader.cli.terminal import editor
from grader.cli.terminal.saves import Saves
from grader.practice import clock, current, files, work
from grader.store import Store, StoreError


@click.command("edit")
@common.slug_or_current
@common.in_workspace
def edit_command(slug: str, workspace: Path | None) -> None:
    """Open SLUG, or the current kata, in your editor (VISUAL, else EDITOR, arguments included)."""
    space = common.find_workspace(workspace)
    path = space.existing(slug)
    common.try_to_store("which kata is current", lambda store: current.make(store, slug, space))
    in_editor(slug, path)
    terminal.say("Next: `kata run` grades it.")


def in_editor(slug: str, path: Path) -> None:
    """Open the file until the editor is closed, and note the time on task meanwhile."""
    common.on_task(slug)
    seen = _Seen(slug, path)
    try:
        editor.edit(path, seen.look)
    finally:
        seen.look()
        common.on_task(slug)


class _Seen:
    """Notes every save while the editor is open: what is written for an hour is an hour's work."""

    def __init__(self, slug: str, path: Path) -> None:
        self.slug, self.path, self.saves = slug, path, Saves(path)
        self.text = files.read(path) or b""

    def look(self) -> None:
        """Look whether the file was saved. Where that cannot be stored, the end says so."""
        if not self.saves.came():
            return
        now, before = clock.now(), self.text
        self.text = files.read(self.path) or b""
        with suppress(StoreError), Store.open(create=False) as store:
            work.on_kata(
                store,
                self.slug,
                now,
                saved=work.saved(self.path, now),
                lines=work.new_lines(before, self.text),
            )
