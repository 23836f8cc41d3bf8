"""doctor, init, completion: the machine, the folder, the shell."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import click
import msgspec

from grader import catalog
from grader.cli import common
from grader.errors import KataError
from grader.practice import database, workspace
from grader.practice.progress import Progress


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path), default=".")
def init_command(folder: Path) -> None:
    """Lay out a workspace of stubs in FOLDER; files already there stay."""
    folder = folder.expanduser().absolute()
    new = workspace.lay_out(folder, (card.slug for card in catalog.cards()))
    with Progress.open(create=True) as progress:
        progress.set(workspace.SETTING, str(folder))
    click.echo(f"{workspace.shown(folder)}: {len(new)} new stubs. Next: kata list")


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script; for bash: eval "$(kata completion bash)"."""
    from click.shell_completion import get_completion_class

    from grader.cli import kata

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(kata, {}, "kata", "_KATA_COMPLETE").source())


@click.command("doctor")
@common.as_json
def doctor_command(json_: bool) -> None:
    """Whether this machine has what grading needs."""
    found = [_python(), _torch(), _accelerator(), _sandbox(), _data(), _workspace()]
    good = all(ok for _, ok, needed, _ in found if needed)
    if json_:
        checks = [{"name": n, "ok": ok, "needed": need, "found": t} for n, ok, need, t in found]
        click.echo(msgspec.json.encode({"ok": good, "checks": checks}))
    else:
        for name, ok, needed, text in found:
            mark = "ok     " if ok else "MISSING" if needed else "none   "
            click.echo(f"{mark}  {name:12} {text}")
    sys.exit(0 if good else 1)


_Line = tuple[str, bool, bool, str]


def _python() -> _Line:
    return "python", sys.version_info >= (3, 11), True, platform.python_version()


def _torch() -> _Line:
    try:
        import torch
    except ImportError as error:
        return "torch", False, True, str(error)
    return "torch", True, True, str(torch.__version__)


def _accelerator() -> _Line:
    from grader.exam.examiner import Examiner

    with Examiner() as examiner:
        kind = examiner.accelerator()
    return "accelerator", bool(kind), False, kind or "gpu parts are skipped here"


def _sandbox() -> _Line:
    path = shutil.which("bwrap")
    if path is None:
        return "sandbox", False, False, "bubblewrap is not installed (for other people's files)"
    command = [path, "--ro-bind", "/", "/", "--unshare-all", "true"]
    works = subprocess.run(command, capture_output=True, check=False).returncode == 0
    return "sandbox", works, False, path if works else f"{path} cannot start a sandbox here"


def _data() -> _Line:
    path = database.file()
    try:
        with Progress.open(create=True):
            return "data folder", os.access(path.parent, os.W_OK), True, str(path)
    except KataError as error:
        return "data folder", False, True, str(error)


def _workspace() -> _Line:
    try:
        place = common.find_workspace(None)
    except KataError as error:
        return "workspace", False, False, str(error)
    return "workspace", True, False, f"{place.folder} ({place.found})"
