"""reset: back to the stub."""

from pathlib import Path

import click

from grader.cli import common, terminal
from grader.cli.start import begin
from grader.store.attempts import Reason


@click.command("reset")
@common.slug
@common.in_workspace
def reset_command(slug: str, workspace: Path | None) -> None:
    """Put SLUG back to its stub and the clock to zero. The old file is kept."""
    terminal.say(*begin(slug, common.find_workspace(workspace), Reason.RESET))
