"""completion: for the shell."""

import click

from grader.cli import terminal


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script of a shell. For bash: eval "$(kata completion bash)"."""
    from click.shell_completion import get_completion_class

    from grader.cli import kata

    kind = get_completion_class(shell)
    assert kind is not None
    terminal.write(kind(kata, {}, "kata", "_KATA_COMPLETE").source())
