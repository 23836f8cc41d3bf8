"""What several commands share: the slug argument, the workspace, the clock."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grader import catalog
from grader.cli import terminal
from grader.errors import UsageFault
from grader.exam.verdict import Part
from grader.practice import files
from grader.practice import workspace as workspaces
from grader.practice.workspace import Workspace
from grader.store import Store, StoreError

DECKS = ("core", "frontier", "all")  # as in recall/bank.py, which a --help need not load

if TYPE_CHECKING:
    ParamType = click.ParamType
else:

    class ParamType(click.ParamType):
        """Click's, which takes no type in brackets before 8.4."""

        def __class_getitem__(cls, _: Any) -> Any:
            return cls


class Slug(ParamType[str]):
    """A kata's slug, or what only one begins with."""

    name = "slug"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        return catalog.find(value)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(slug) for slug in catalog.slugs() if slug.startswith(incomplete)]


class _Within(ParamType[str]):
    """A word that is one of some which the kata decides on, by the kata named before it."""

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        # An option that waits for its value keeps Click from taking the arguments before it.
        named = (word for word in ctx.args if word in catalog.slugs())
        slug = ctx.params.get("slug") or next(named, None)
        if slug is None:
            from grader.practice import current

            with Store.open(create=False) as store:
                found = current.read(store)
            slug = found.slug if found else None
        return [CompletionItem(word) for word in self.words(slug) if word.startswith(incomplete)]

    def words(self, slug: str | None) -> Iterable[str]:
        """Those of a kata, or where none is meant those that there may be."""
        raise NotImplementedError


class PartName(_Within):
    """A part of a kata."""

    name = "part"

    def words(self, slug: str | None) -> Iterable[str]:
        from grader.practice import contract

        return list(Part) if slug is None else contract.rules(slug)


class CheckName(_Within):
    """A check of a kata, by its name or some of it."""

    name = "check"

    def words(self, slug: str | None) -> Iterable[str]:
        from grader.practice import contract

        return [] if slug is None else contract.checks(slug)


def _current(ctx: Any, param: Any, value: str | None) -> str | None:
    return value if value is not None or ctx.resilient_parsing else current_slug()


def current_slug() -> str:
    """The current kata. Raises UsageFault if there is none."""
    from grader.practice import current  # `list` and --help do without it

    with Store.open(create=False) as store:
        found = current.read(store)
    if found is None:
        raise UsageFault("No kata is current: `kata start SLUG` begins one, or name it.")
    return found.slug


slug = click.argument("slug", type=Slug())
slug_or_current = click.argument("slug", type=Slug(), required=False, callback=_current)
in_workspace = click.option(
    "--workspace",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The folder of your katas (also: KATA_WORKSPACE).",
)
as_json = click.option("--json", "json_", is_flag=True, help="One JSON object on stdout.")


def find_workspace(option: Path | None) -> Workspace:
    """The workspace of a command; see `practice.workspace.find`."""

    def remembered() -> str | None:
        with Store.open(create=False) as store:
            return store.settings.get(workspaces.SETTING)

    return workspaces.find(option, os.environ, Path.cwd(), remembered)


def try_to_store(what: str, write: Callable[[Store], None]) -> None:
    """Write to the progress file; if that fails, say so beside the result and go on."""
    try:
        with Store.open(create=True) as store:
            write(store)
    except StoreError as error:
        terminal.note(f"note: {what} is not stored. {error}")


def on_task(slug: str) -> None:
    """The tool is used for a kata: if that was begun, its time on task goes on."""
    from grader.practice import clock, work

    try:
        with Store.open(create=False) as store:
            work.on_kata(store, slug, clock.now())
    except StoreError as error:
        terminal.note(f"note: the time on task is not stored. {error}")


def write(path: Path, content: bytes, force: bool) -> None:
    """Write a file. Raises UsageFault if one is there (unless `force`), or if it cannot be."""
    if force:
        files.replace(path, content, keep=lambda _: None)
    elif not files.create(path, content):
        raise UsageFault(f"{path} is there already. --force replaces it.")
