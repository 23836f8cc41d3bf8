"""Every test has a data folder of its own, and runs the real `kata` in a child process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Kata = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def kata(tmp_path: Path) -> Kata:
    """Runs `kata` with these arguments, in an empty folder with its own workspace."""
    (tmp_path / "work").mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KATA_", "NO_COLOR"))}
    environment |= {"KATA_HOME": str(tmp_path / "home"), "COLUMNS": "100"}

    def run(*arguments: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "grader", *arguments],
            cwd=tmp_path / "work",
            env={**environment, "KATA_WORKSPACE": str(tmp_path / "work"), **extra},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
