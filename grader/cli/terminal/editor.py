"""The learner's own editor: VISUAL, else EDITOR, with the arguments that stand there."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from grader.errors import UsageFault

_LOOK_S = 0.25


def edit(path: Path, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Open a file in it, until it is closed; `meanwhile` is called several times a second.

    Raises UsageFault if none is set, if it cannot be run, or if it ends with an error.
    """
    command = _command(path)
    before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the editor's
    try:
        process = subprocess.Popen([*command, str(path)])
        while process.poll() is None:
            meanwhile()
            time.sleep(_LOOK_S)
    except OSError as error:
        raise UsageFault(f"{command[0]} cannot be run: {error.strerror}.") from error
    finally:
        signal.signal(signal.SIGINT, before)
    if process.returncode:
        raise UsageFault(f"{command[0]} ended with status {process.returncode}.")


def _command(path: Path) -> list[str]:
    name = next((n for n in ("VISUAL", "EDITOR") if os.environ.get(n, "").strip()), None)
    if name is None:
        raise UsageFault(
            f"No editor is set: `export EDITOR=vim`, say, or `code -w`. The file is {path}."
        )
    try:
        return shlex.split(os.environ[name])
    except ValueError as error:
        raise UsageFault(f"{name} cannot be read as a command: {error}.") from error
