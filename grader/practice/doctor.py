"""Whether this machine can grade: Python, torch, accelerator, data folder, workspace, the box.

Torch is asked in a child process: an installation so broken that importing it crashes, or a
driver that hangs, is then a finding and not our own end.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from grader.errors import KataError
from grader.practice.workspace import Workspace
from grader.store import Store, database

_TORCH_S = 60.0
_ASK_TORCH = """
import torch
print(torch.__version__)
device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
print("" if device is None else device.type)
"""


@dataclass(frozen=True)
class Symptom:
    """One thing looked at. Without a `needed` one grading does not work; the others add to it."""

    name: str
    ok: bool
    needed: bool
    found: str


def examine(find_workspace: Callable[[], Workspace], *, editor: bool) -> list[Symptom]:
    """All of them, in the order they are to be mended. `editor`: the pages' own was built."""
    return [
        _python(),
        *_torch(),
        _data(),
        _backup(),
        _workspace(find_workspace),
        web_editor(editor),
        *_sandbox(),
    ]


def _python() -> Symptom:
    good = sys.version_info >= (3, 11) and hasattr(os, "fork")
    return Symptom("python", good, True, f"{platform.python_version()} on {platform.system()}")


def _torch() -> list[Symptom]:
    answer, trouble = _ask([sys.executable, "-c", _ASK_TORCH], _TORCH_S)
    if trouble:
        return [
            Symptom("torch", False, True, trouble),
            Symptom("accelerator", False, False, "not known without torch"),
        ]
    version, device = answer.split("\n")[:2]
    without = "none; the gpu parts are skipped"
    return [
        Symptom("torch", True, True, version),
        Symptom("accelerator", bool(device), False, device or without),
    ]


def _sandbox() -> list[Symptom]:
    """The box of `kata grade`, layer by layer, as it was found to hold."""
    from grader.exam import box  # whose command asks for no torch, either

    return [
        Symptom(f"box: {layer.name}", layer.holds, False, layer.words) for layer in box.layers()
    ]


def web_editor(built: bool) -> Symptom:
    """The editor of the pages: none without their extra, plain where it was not built."""
    if find_spec("uvicorn") is None:
        found = "no pages: they need pip install 'lora-kata[web]'"
    elif built:
        return Symptom("web editor", True, False, "built with the package")
    else:
        found = "a plain one; an install where npm reaches its registry builds the full one"
    return Symptom("web editor", False, False, found)


def _ask(command: list[str], seconds: float) -> tuple[str, str]:
    """What a command prints, and in a line what went wrong, or ''."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer within {seconds:.0f} seconds"
    except OSError as error:
        return "", error.strerror or str(error)
    if done.returncode == 0:
        return done.stdout, ""
    said = done.stderr.strip().splitlines()
    return "", said[-1] if said else f"ended with status {done.returncode}"


def _data() -> Symptom:
    path = database.file()
    folder = path.parent
    try:
        Store.open(create=False).close()
    except KataError as error:
        return Symptom("data folder", False, True, str(error))
    there = next(f for f in (folder, *folder.parents) if f.exists())
    good = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    if path.exists():
        good = good and os.access(path, os.W_OK)
    found = str(folder) if good else f"{folder} cannot be written to; KATA_HOME names another"
    return Symptom("data folder", good, True, found)


def _backup() -> Symptom:
    found = [backup for backup in Store.backups() if backup.by != "restore"]
    if not found:
        text = "none yet; the first write of a day makes one, `kata backup` another"
        return Symptom("backup", False, False, text)
    last = found[-1]
    return Symptom("backup", True, False, f"{last.at:%Y-%m-%d %H:%M}, one of {len(found)}")


def _workspace(find: Callable[[], Workspace]) -> Symptom:
    try:
        workspace = find()
    except KataError as error:
        return Symptom("workspace", False, True, str(error))
    good = os.access(workspace.folder, os.W_OK | os.X_OK)
    found = f"{workspace.folder} ({workspace.found})"
    return Symptom("workspace", good, True, found if good else f"{found} cannot be written to")
