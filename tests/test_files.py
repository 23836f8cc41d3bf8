"""The learner's file beside the reference, and its kept versions, through the real `kata`."""

import re
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from grader import content

pytestmark = pytest.mark.slow

Kata = Callable[..., "subprocess.CompletedProcess[str]"]


def solutions_seen(home: Path) -> int:
    database = sqlite3.connect(home / "progress.db")
    (number,) = database.execute("SELECT count(*) FROM solutions_seen").fetchone()
    database.close()
    return int(number)


def test_the_diff_leads_from_the_file_to_the_solution(kata: Kata, tmp_path: Path) -> None:
    """Lines taken away are the file's, lines added are the solution's; looking is noted."""
    file = tmp_path / "work" / "lora_linear.py"
    assert kata("start", "lora_linear").returncode == 0
    shown = kata("solution", "lora_linear", "--diff")
    assert shown.returncode == 0, shown.stderr
    first, second, *rest = shown.stdout.splitlines()
    assert first.startswith("--- ")
    assert first.endswith("lora_linear.py")
    assert second == "+++ solution of lora_linear"
    taken = [line[1:] for line in rest if line.startswith("-")]
    added = [line[1:] for line in rest if line.startswith("+")]
    reference = kata("solution", "lora_linear").stdout.splitlines()
    assert "        raise NotImplementedError" in taken
    assert set(taken) <= set(file.read_text().splitlines())
    assert set(added) <= set(reference)
    assert "BEGIN SOLUTION" not in shown.stdout
    assert solutions_seen(tmp_path / "home") == 2

    file.write_text("\n".join(reference) + "\n")
    same = kata("solution", "lora_linear", "--diff")
    assert same.stdout == "Your file is the reference, line by line.\n"


def test_the_diff_needs_a_file_and_shows_nothing_harmful(kata: Kata, tmp_path: Path) -> None:
    """Without a file nothing is shown or noted; escape codes and odd bytes in one do not reach
    the terminal."""
    missing = kata("solution", "lora_linear", "--diff")
    assert missing.returncode == 2
    assert "lora_linear.py" in missing.stderr
    assert missing.stdout == ""
    assert not (tmp_path / "home" / "progress.db").exists()

    file = tmp_path / "work" / "lora_linear.py"
    file.write_bytes(b"# \x1b[31mred \xff\n" + content.solution("lora_linear").read_bytes())
    shown = kata("solution", "lora_linear", "--diff")
    assert shown.returncode == 0, shown.stderr
    assert "red" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_history_tells_what_became_of_each_version(kata: Kata, tmp_path: Path) -> None:
    """A row per version with its last attempt; what was graded without a file stands below."""
    file = tmp_path / "work" / "lora_linear.py"

    def at(clock: str, *command: str) -> "subprocess.CompletedProcess[str]":
        return kata(*command, TZ="UTC", KATA_CLOCK=f"2026-03-02T{clock}+00:00")

    nothing = at("09:00:00", "history", "lora_linear")
    assert nothing.returncode == 0
    assert nothing.stdout.startswith("Nothing of lora_linear is kept yet.")

    file.write_text("1\n")
    at("09:00:00", "start", "lora_linear")
    file.write_text("1\n2\n")
    at("09:05:07", "run", "lora_linear", "--part", "shape")
    at("09:06:00", "run", "lora_linear")
    solution = content.solution("lora_linear").read_bytes()
    lines = len(solution.splitlines())
    file.write_bytes(solution)
    at("09:09:00", "run", "lora_linear", "--part", "shape")
    file.write_bytes(b"#" * (2 << 20))
    at("09:10:00", "run", "lora_linear")
    page = at("09:11:00", "history", "lora_linear")
    assert page.returncode == 0, page.stderr
    assert re.sub(r"\d+ of \d+ checks", "checks", page.stdout) == (
        "lora_linear: 4 attempts, 3 versions kept\n"
        "\n"
        "version  kept                 by     lines  attempts with it\n"
        "      1  2026-03-02 09:00:00  start      1  –\n"
        "      2  2026-03-02 09:05:07  run        2  2: not passed, checks (and 1 before)\n"
        f"      3  2026-03-02 09:09:00  run       {lines}  3: part shape passed, checks\n"
        "4: not passed, checks; there was no file to keep\n"
        "\n"
        "`kata restore lora_linear VERSION` brings one back.\n"
    )
