"""The commands, through the real `kata`."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from grader import catalog, content
from grader.practice import doctor
from grader.recall import bank

GOLDEN = Path(__file__).parent / "golden"
Kata = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.slow
def test_a_round_from_start_to_pass(kata: Kata, tmp_path: Path) -> None:
    """start, run the stub, solve, run, history, reset, restore: and nothing is lost."""
    file = tmp_path / "work" / "lora_linear.py"
    assert kata("start", "lora_linear").returncode == 0
    stub = kata("run")
    assert stub.returncode == 1
    assert "not started" in stub.stdout
    file.write_bytes(content.solution("lora_linear").read_bytes())
    solved = kata("run", "lora_l")
    assert solved.returncode == 0, solved.stdout + solved.stderr
    assert "passed, complete" in solved.stdout
    assert "attempt 2" in solved.stdout
    assert json.loads(kata("list", "--json").stdout)["katas"][0]["level"] == "complete"
    file.write_bytes(b"mine \xff")
    assert kata("reset", "lora_linear").returncode == 0
    assert b"NotImplementedError" in file.read_bytes()
    versions = json.loads(kata("history", "lora_linear", "--json").stdout)["versions"]
    last = versions[-1]["number"]
    assert kata("restore", "lora_linear", str(last)).returncode == 0
    assert file.read_bytes() == b"mine \xff"
    assert kata("restore", "lora_linear", "99").returncode == 2


def test_json_is_the_agreed_object(kata: Kata, tmp_path: Path) -> None:
    """--json prints one object and nothing else; --file leaves progress alone."""
    other = tmp_path / "other.py"
    other.write_text("class LoRALinear: pass\n")
    done = kata("run", "lora_linear", "--file", str(other), "--json", "--seed", "5")
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    keys = {"version", "slug", "passed", "level", "seed", "seconds", "checks", "headline", "error"}
    assert set(answer) == keys
    assert answer["version"] == 1
    assert answer["seed"] == 5
    assert set(answer["checks"][0]) == {"name", "part", "outcome", "message", "bug", "printed"}
    assert answer["checks"][answer["headline"]]["outcome"] == "failed"
    assert json.loads(kata("history", "lora_linear", "--json").stdout)["attempts"] == []


def test_wrong_usage(kata: Kata) -> None:
    """Wrong usage ends with exit code 2 and one plain line."""
    unknown = kata("run", "lora_lineer")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith(
        "error: No kata is called 'lora_lineer'. Did you mean lora_linear"
    )
    part = kata("run", "lora_linear", "--solution", "--part", "colour")
    assert part.returncode == 2
    assert "lora_linear has no part 'colour'. Its parts: shape, init" in part.stderr
    gone = kata("run", "lora_linear", "--file", "gone.py")
    assert gone.returncode == 2
    assert "There is no file gone.py" in gone.stderr
    assert kata("run", "lora_linear").returncode == 2  # no file in this workspace yet


def test_hints_climb_the_ladder(kata: Kata) -> None:
    """Each call shows the next hint; the last says where the solution is."""
    assert "Hint 1 of 4" in kata("hint", "lora_linear").stdout
    assert "Hint 2 of 4" in kata("hint", "lora_linear").stdout


@pytest.mark.slow
def test_mends_are_said_last(kata: Kata, tmp_path: Path) -> None:
    """A run says what is wrong, how it shows and why; how to mend it is the last hint, or asked
    for. The ladder begins with what failed last."""
    mend = "scale = alpha / rank"
    file = tmp_path / "work" / "lora_linear.py"
    file.write_bytes((GOLDEN / "one_mistake" / "lora_linear.py").read_bytes())
    page = kata("run", "lora_linear", "--seed", "7", COLUMNS="80").stdout
    assert page.index("shows as:") < page.index("why:") < page.index("drill:")
    assert "  drill:    kata quiz --ask lora-scaling-alpha-rank\n" in page
    assert mend not in page
    assert len(page.splitlines()) < 24
    assert max(map(len, page.splitlines())) <= 80
    assert mend in kata("run", "--part", "forward", "--more").stdout
    for rung in range(1, 6):
        said = kata("hint").stdout
        assert said.startswith("Your last run: The branch is scaled by alpha, not by alpha / rank")
        assert "It is drilled by `kata quiz --ask lora-scaling-alpha-rank`." in said
        assert f"Hint {rung} of 5" in said
        assert (mend in said) == (rung == 5)
    file.write_text("x = (")
    kata("run")
    assert "Your last run: syntax: SyntaxError" in kata("hint").stdout
    file.write_bytes(content.solution("lora_linear").read_bytes())
    kata("run")
    assert "Your last run" not in kata("hint").stdout


def test_pages_need_no_torch(kata: Kata, tmp_path: Path) -> None:
    """Commands that do not grade never import torch."""
    (tmp_path / "torch.py").write_text("raise RuntimeError('torch was imported')\n")
    for command in (
        ["--help"],
        ["list"],
        ["show", "lora_linear"],
        ["hint", "lora_linear"],
        ["start", "lora_linear"],
        ["history", "lora_linear"],
        ["solution", "lora_linear"],
        ["completion", "bash"],
    ):
        done = kata(*command, PYTHONPATH=f"{tmp_path}:{Path(__file__).parent.parent}")
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_only_html_pages_need_their_templates(kata: Kata, tmp_path: Path) -> None:
    """Jinja2 is imported when such a page is made, and by no other command."""
    (tmp_path / "jinja2.py").write_text("raise RuntimeError('jinja2 was imported')\n")

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return kata(*command, PYTHONPATH=f"{tmp_path}:{Path(__file__).parent.parent}")

    assert "jinja2 was imported" in run("stats", "--html", "page.html").stderr
    for command in (
        ["--help"],
        ["list"],
        ["stats"],
        ["mock", "--list"],
        ["run", "lora_linear", "--solution", "--part", "shape"],
    ):
        done = run(*command)
        assert done.returncode == 0, done.stderr


def test_show_tells_the_task_and_not_the_answer(kata: Kata) -> None:
    """The page has the contract and the rules, and no line of the solution's body."""
    page = kata("show", "lora_linear").stdout
    assert "lora_A" in page
    assert "The input is not changed in place." in page
    assert "kaiming" not in page


def test_show_says_why_it_is_asked_and_names_its_questions(kata: Kata) -> None:
    """Each page has the catalogue's reason, in two lines, and the bank's questions, whole."""
    for card in catalog.cards():
        page = kata("show", card.slug).stdout.splitlines()
        why = page.index(next(line for line in page if line.startswith("Why it is asked: ")))
        assert not page[why + 1] or not page[why + 2], f"{card.slug}: more than two lines"
        ids = [question.id for question in bank.load() if card.slug in question.katas]
        assert all(id in "\n".join(page) for id in ids), card.slug


def test_katas_build_on_earlier_ones(kata: Kata) -> None:
    """What a kata needs comes before it on the way; list, --json and its page say it."""
    listed = json.loads(kata("list", "--json").stdout)["katas"]
    numbers = {row["slug"]: row["order"] for row in listed}
    assert len(set(numbers.values())) == len(numbers)
    for row in listed:
        assert all(numbers[need] < row["order"] for need in row["needs"]), row["slug"]
    head, *_ = kata("list", COLUMNS="120").stdout.splitlines()[1:]
    assert head.split() == ["#", "kata", "status", "due", "best", "par", "after", "difficulty"]
    assert max(map(len, kata("list", COLUMNS="60").stdout.splitlines())) <= 60
    assert "after lora_linear and nf4_quantize" in kata("show", "qlora_linear").stdout


def test_help_says_where_to_start(kata: Kata) -> None:
    """Commands come in sections; a mistyped one is met with the nearest."""
    page = kata("--help").stdout
    assert page.index("Start here:") < page.index("init") < page.index("Write and grade")
    assert set(re.findall(r"^  ([a-z]+) ", page, re.M)) >= {"watch", "debug", "quiz", "doctor"}
    done = kata("wach")
    assert done.returncode == 2
    assert "There is no command 'wach'. Did you mean watch?" in done.stderr
    assert "There is no command 'qqqq'.\n" in kata("qqqq").stderr


def test_only_tracks_with_katas_are_offered(kata: Kata) -> None:
    """list and mock offer the tracks that the catalogue fills, in teaching order."""
    offered = f"[{'|'.join(catalog.tracks())}]"
    assert catalog.tracks()[0] == "core"
    for command in ("list", "mock"):
        assert offered in "".join(kata(command, "--help").stdout.split())
    for track in set(catalog.TRACKS) - set(catalog.tracks()):
        assert kata("list", "--track", track).returncode == 2


def test_init_lays_out_stubs(kata: Kata, tmp_path: Path) -> None:
    """init writes every stub and never overwrites a file."""
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "lora_linear.py").write_text("mine")
    assert kata("init", str(folder)).returncode == 0
    assert (folder / "lora_linear.py").read_text() == "mine"


def test_start_makes_it_the_current_kata(kata: Kata) -> None:
    """`run` without a slug grades what was started last, even if its stub lay there already."""
    kata("init", ".")
    kata("start", "lora_linear")
    assert json.loads(kata("run", "--json").stdout)["slug"] == "lora_linear"


@pytest.mark.slow
def test_doctor(kata: Kata) -> None:
    """doctor finds what grading needs."""
    done = kata("doctor", "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["ok"]


@pytest.mark.parametrize(
    ("there", "built", "found"),
    [(True, True, "built"), (True, False, "a plain one"), (False, True, "no pages")],
)
def test_doctor_tells_the_editor_of_the_pages(
    monkeypatch: pytest.MonkeyPatch, there: bool, built: bool, found: str
) -> None:
    """Whether it was built, and what to do about it; grading needs none."""
    monkeypatch.setattr(doctor, "find_spec", lambda _: object() if there else None)
    symptom = doctor.web_editor(built)
    assert (symptom.ok, symptom.needed) == (there and built, False)
    assert symptom.found.startswith(found)
