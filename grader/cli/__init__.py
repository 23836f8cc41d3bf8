"""The `kata` command. Commands are loaded when they are called, torch only by those that grade."""

import errno
import os
import sys
from importlib import import_module
from typing import Any

import click

from grader import __version__, names
from grader.cli import terminal
from grader.errors import KataError

# by section: command -> the line that --help shows; each stands in the module of its name
_SECTIONS = {
    "Start here": {
        "init": "Lay out a workspace of stubs in a folder.",
        "list": "Katas with status, best time and par time.",
        "show": "The task: contract, parts, par time.",
        "start": "A fresh stub; starts the clock. The old file is kept.",
        "next": "Start the kata that is due, or comes next.",
        "web": "The practice in a browser, on this machine alone.",
    },
    "Write and grade (without SLUG: the current kata)": {
        "edit": "The file in your editor.",
        "run": "Grade a kata's file.",
        "watch": "Grade on every save; single keys do the rest.",
        "debug": "One failing check again, in this terminal: print, pdb.",
        "hint": "The next hint of the ladder.",
        "solution": "The reference solution (noted as seen).",
        "bug": "A planted bug to find and mend.",
        "reset": "Back to the stub. The old file is kept.",
        "history": "Attempts and kept versions of a kata.",
        "restore": "Bring back a kept version.",
    },
    "Recall and interviews": {
        "quiz": "Active recall: due questions first, then new ones.",
        "mock": "A timed mock interview and its report.",
        "today": "What is due and what is new today, with minutes.",
        "plan": "Fit practice into the days before an interview.",
        "stats": "Streak, recall by topic, katas against par.",
        "export": "Questions for Anki, or all of it as JSON.",
        "import": "Another machine's record, joined to this one's.",
    },
    "Other people's files": {
        "grade": "Grade a class: folders, archives, notebooks; each in a sandbox.",
    },
    "The tool itself": {
        "backup": "Copies of all that is stored, made daily; one comes back.",
        "doctor": "Python, torch, accelerator, data folder, the box.",
        "verify": "The suites check themselves: solutions pass, bugs are named.",
        "completion": "Shell completion for bash, zsh or fish.",
    },
}
_COMMANDS = [name for section in _SECTIONS.values() for name in section]


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS]  # `list` is a command here

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = import_module(f"grader.cli.{name}")
        command: click.Command = getattr(module, f"{name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([*commands.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = names.near(args[0], _COMMANDS)[:2]
            ask = f" Did you mean {' or '.join(near)}?" if near else ""
            raise click.UsageError(f"There is no command '{args[0]}'.{ask}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--no-pager", is_flag=True, help="Show long pages whole (also: NO_PAGER=1).")
@click.version_option(__version__, prog_name="kata")
def kata(no_pager: bool) -> None:
    """Coding katas on LoRA and parameter-efficient fine-tuning, graded as you go."""
    if no_pager:
        os.environ["NO_PAGER"] = "1"


def main() -> None:
    """Run the command line; ends the process with DESIGN's exit codes."""
    terminal.prepare()
    status = _status()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        terminal.hang_up(sys.stdout)
    except OSError as error:
        if status != terminal.OutputFault.exit_code:  # it has been said, otherwise
            status = _fail(str(terminal.OutputFault(error)), terminal.OutputFault.exit_code)
        terminal.hang_up(sys.stdout)
    if "torch" in sys.modules:  # taking it apart lasts 0.3 s, and all of ours is closed
        os._exit(status)
    sys.exit(status)


def _status() -> int:
    try:
        os.getcwd()
    except OSError:
        return _fail("The current folder does not exist any more; `cd` to one that does.", 2)
    try:
        # Commands return their exit code; None is 0. For help Click alone takes no fewer than 50
        # columns.
        wide = min(terminal.width(), 80)
        return kata(prog_name="kata", standalone_mode=False, terminal_width=wide) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        terminal.note(error.format_message())
        return 2
    except click.UsageError as error:
        help_ = f"{error.ctx.command_path} --help" if error.ctx else "kata --help"
        return _fail(f"{error.format_message()}\nSee `{help_}`.", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except KataError as error:
        return _fail(str(error), error.exit_code)
    except SystemExit as end:  # Click, when a reader of --help has hung up
        return 0 if end.code == 1 else int(end.code or 0)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            fault = terminal.OutputFault(error)  # Click's own pages
            return _fail(str(fault), fault.exit_code)
        if os.environ.get("KATA_DEBUG"):
            import traceback

            terminal.note(traceback.format_exc().rstrip())
        text = " ".join(f"{type(error).__name__}: {error}".split())
        where = "" if os.environ.get("KATA_DEBUG") else " (KATA_DEBUG=1 shows where)"
        return _fail(f"kata itself failed{where}. {text}", 3)


def _fail(text: str, status: int) -> int:
    terminal.note(f"error: {text}")
    return status
