"""The `kata` command. Commands are loaded when they are called, torch only by those that grade."""

import os
import sys
from importlib import import_module

import click

from grader import __version__
from grader.errors import KataError

# command -> (module of grader.cli, the line that --help shows)
_COMMANDS = {
    "list": ("browse", "Katas with status, best time and par time."),
    "show": ("browse", "The task: contract, parts, par time."),
    "start": ("files", "A fresh stub; starts the clock. The old file is kept."),
    "run": ("grade", "Grade a kata's file."),
    "hint": ("help", "The next hint of the ladder."),
    "solution": ("help", "The reference solution (noted as seen)."),
    "reset": ("files", "Back to the stub. The old file is kept."),
    "history": ("files", "Attempts and kept versions of a kata."),
    "restore": ("files", "Bring back a kept version."),
    "verify": ("grade", "The suites check themselves: solutions pass, bugs are named."),
    "doctor": ("setup", "Python, torch, accelerator, sandbox, data folder."),
    "init": ("setup", "Lay out a workspace of stubs in a folder."),
    "completion": ("setup", "Shell completion for bash, zsh or fish."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = import_module(f"grader.cli.{_COMMANDS[name][0]}")
        command: click.Command = getattr(module, f"{name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kata")
def kata() -> None:
    """Coding katas on LoRA and parameter-efficient fine-tuning, graded as you go."""


def main() -> None:
    """Run the command line; ends the process with DESIGN's exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # an ASCII terminal shows ? and goes on
    try:
        status = kata(prog_name="kata", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        status = end.exit_code
    except click.ClickException as error:
        error.show()
        status = 2
    except (click.Abort, KeyboardInterrupt):
        status = 130
    except KataError as error:
        click.echo(f"error: {error}", err=True)
        status = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 0
    except Exception as error:
        if os.environ.get("KATA_DEBUG"):
            raise
        text = " ".join(str(error).split())
        click.echo(f"error: kata itself failed ({type(error).__name__}: {text}).", err=True)
        click.echo("KATA_DEBUG=1 shows where.", err=True)
        status = 3
    sys.exit(status or 0)
