"""What several commands share: the slug argument, the workspace, the clock."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from grader import catalog
from grader.practice import workspace as workspaces
from grader.practice.progress import Progress
from grader.practice.workspace import Workspace


class Slug(click.ParamType[str]):
    """A kata's slug, or what only one begins with."""

    name = "slug"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        return catalog.find(value)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(slug) for slug in catalog.slugs() if slug.startswith(incomplete)]


slug = click.argument("slug", type=Slug())
in_workspace = click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    help="The folder of your katas.",
)
as_json = click.option("--json", "json_", is_flag=True, help="One JSON object on stdout.")


def now() -> datetime:
    return datetime.now(UTC)


def find_workspace(option: Path | None) -> Workspace:
    def remembered() -> str | None:
        with Progress.open(create=False) as progress:
            return progress.setting(workspaces.SETTING)

    return workspaces.find(option, os.environ, Path.cwd(), remembered)


def minutes(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}" if seconds < 36_000 else "10 h+"
