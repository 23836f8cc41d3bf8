"""`kata run --check`: one check by its name, through the real `kata`."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from grader import content

Kata = Callable[..., "subprocess.CompletedProcess[str]"]
SLUG = "ia3_linear"
RIGHT = content.solution(SLUG).read_text()
WRONG = RIGHT.replace("self.base(x) * self.scale", "self.base(x) + self.scale")


@pytest.fixture
def file(kata: Kata, tmp_path: Path) -> Path:
    assert kata("start", SLUG).returncode == 0
    return tmp_path / "work" / f"{SLUG}.py"


@pytest.mark.slow
def test_one_check_has_its_page_and_is_no_pass(kata: Kata, file: Path) -> None:
    """It alone is made, on what is right and what is wrong; the attempt is kept as such, and
    neither solves the kata nor is taken for the whole."""
    file.write_text(RIGHT)
    done = kata("run", "--check", "any leading dimensions")
    assert done.returncode == 0
    assert done.stdout.endswith(
        "✓ ia3_linear: check any leading dimensions passed. "
        "Next: `kata run ia3_linear`, all of it.\n"
    )
    assert done.stdout.count("1/1  passed") == 1
    assert "not passed yet" not in kata("list").stdout
    assert json.loads(kata("list", "--json").stdout)["katas"][0]["level"] == "none"
    file.write_text(WRONG)
    done = kata("run", SLUG, "--check", "any_leading", "--json")
    assert done.returncode == 1
    verdict = json.loads(done.stdout)
    assert [check["name"] for check in verdict["checks"]] == ["any_leading_dimensions"]
    assert verdict["level"] == "none"
    kept = kata("history").stdout
    assert "1: check any leading dimensions passed, 1 of 1 checks" in kept
    assert "2: check any leading dimensions not passed, 0 of 1 checks" in kept
    assert [a["check"] for a in json.loads(kata("history", "--json").stdout)["attempts"]] == [
        "any_leading_dimensions"
    ] * 2
    assert "Your last run:" in kata("hint").stdout
    level = [k for k in json.loads(kata("list", "--json").stdout)["katas"] if k["slug"] == SLUG]
    assert (level[0]["level"], level[0]["best_seconds"], level[0]["due_at"]) == ("none", None, None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--check", "leading dimension any"], "is none of the checks of ia3_linear: any leading"),
        (["--check", "gradient"], "'gradient' means several of the checks of ia3_linear: "),
        (["--check", "any leading", "--part", "shape"], "--part and --check exclude each other"),
        (["--check", "any leading", "--all"], "--all grades all that is begun"),
    ],
)
def test_what_is_no_check_is_said(kata: Kata, file: Path, options: list[str], said: str) -> None:
    """In a line, with what is near, before anything is graded."""
    done = kata("run", *([] if "--all" in options else [SLUG]), *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert "Nothing of" in kata("history").stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["run", SLUG, "--part", "f"], ["freeze", "forward"]),
        (["run", "--part", "mer"], ["merge"]),
        (["run", SLUG, "--check", "any_le"], ["any_leading_dimensions"]),
        (["run", "--check", "any_le"], ["any_leading_dimensions"]),
        (["run", "lora_linear", "--check", "unmerge"], ["unmerge_takes", "unmerge_restores"]),
    ],
)
def test_parts_and_checks_complete(
    kata: Kata, file: Path, typed: list[str], offered: list[str]
) -> None:
    """In a shell, for the kata named before, or the current one."""
    words = " ".join(["kata", *typed])
    done = kata(
        _KATA_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1)
    )
    assert done.returncode == 0
    found = [line.removeprefix("plain,") for line in done.stdout.split()]
    assert len(found) == len(offered)
    assert all(any(name.startswith(word) for name in found) for word in offered)
