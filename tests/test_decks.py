"""Decks: what is new comes from the deck asked for, what was begun comes back all the same."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from grader import catalog
from grader.interview import setter
from grader.interview.record import Record
from grader.recall import bank

Kata = Callable[..., "subprocess.CompletedProcess[str]"]

CLONE = Path(__file__).parent.parent
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
LATER = (NOW + timedelta(days=20)).isoformat()


def _question(id: str, topic: str, deck: str | None = None) -> dict[str, Any]:
    followups = [{"prompt": "Why?", "answer": "So."}, {"prompt": "When?", "answer": "Now."}]
    question = {
        "id": id,
        "topic": topic,
        "kind": "recall",
        "difficulty": "easy",
        "prompt": f"What is {id}?",
        "answer": f"It is {id}.",
        "points": ["a", "b", "c"],
        "followups": followups,
        "sources": ["a paper"],
        "katas": ["lora_linear"],
    }
    return question if deck is None else {**question, "deck": deck}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose core deck is one, two, three and whose frontier is new-one, new-two."""
    clone = tmp_path / "clone"
    (clone / "questions").mkdir(parents=True)
    for part in ("grader", "solutions", "katas"):
        (clone / part).symlink_to(CLONE / part)
    for file, questions in {
        "lora": [_question("one", "lora"), _question("two", "lora")],
        "rank": [_question("three", "rank")],
        "frontier_x": [_question(f"new-{n}", "lora", "frontier") for n in ("one", "two")],
    }.items():
        (clone / "questions" / f"{file}.yaml").write_text(json.dumps(questions))
    return clone


@pytest.fixture
def kata(clone: Path, tmp_path: Path, environment: dict[str, str]) -> Kata:
    """Runs that clone's `kata` with what is piped in."""

    def run(
        *arguments: str, given: str = "", clock: str = NOW.isoformat()
    ) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "grader", *arguments],
            cwd=tmp_path / "work",
            env={**environment, "PYTHONPATH": str(clone), "KATA_CLOCK": clock, "TZ": "UTC"},
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "failed" not in done.stderr, done.stderr
        return done

    return run


def _asked(kata: Kata, *options: str, clock: str = NOW.isoformat()) -> list[str]:
    """What a quiz asks, nothing being given or stored but that it was begun."""
    done = kata("quiz", "--cram", *options, given="\n\n" * 9, clock=clock)
    assert done.returncode == 0, done.stderr
    return [line.split(" is ")[1][:-1] for line in done.stdout.splitlines() if "It is " in line]


def _begin(kata: Kata, id: str) -> None:
    """Ask one question and rate it `good`."""
    done = kata("quiz", "--ask", id, given="\nall\n3\n")
    assert done.returncode == 0, done.stderr
    assert "Rated good" in done.stdout


def _keys(kata: Kata, clock: str = NOW.isoformat()) -> set[str]:
    """The questions on today's agenda."""
    found = json.loads(kata("today", "--json", clock=clock).stdout)
    entries = [*found["due"], *found["new"]]
    return {entry["name"] for entry in entries if entry["kind"] == "question"}


CORE, FRONTIER = {"one", "two", "three"}, {"new-one", "new-two"}


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ((), CORE),
        (("--deck", "core"), CORE),
        (("--deck", "frontier"), FRONTIER),
        (("--deck", "all"), CORE | FRONTIER),
        (("--deck", "all", "--topic", "lora"), {"one", "two"} | FRONTIER),
        (("--topic", "lora"), {"one", "two"}),
        (("--ask", "new-one"), {"new-one"}),
    ],
)
def test_a_quiz_asks_the_core_deck_unless_told(
    kata: Kata, options: tuple[str, ...], asked: set[str]
) -> None:
    """--deck chooses, --ask finds any."""
    found = _asked(kata, *options)
    assert set(found) == asked
    assert len(found) == len(asked)


def test_what_was_begun_of_the_other_deck_comes_back(kata: Kata) -> None:
    """In `today` and in a quiz without --deck; a deck named is that deck alone."""
    assert _keys(kata) == CORE
    _begin(kata, "new-one")
    assert _keys(kata, LATER) == CORE | {"new-one"}
    began = kata("quiz", given="q\n", clock=LATER).stdout
    assert "1 due, 3 new." in began
    assert "new-one" in began
    assert "3 new." in kata("quiz", "--deck", "core", given="q\n", clock=LATER).stdout
    assert "1 due, 1 new." in kata("quiz", "--deck", "frontier", given="q\n", clock=LATER).stdout


def test_an_answer_not_rated_is_gone_on_with(kata: Kata) -> None:
    """A quiz without --deck takes it over, of whatever deck it is."""
    left = kata("quiz", "--deck", "frontier", given="said\n\nq\n")
    assert left.returncode == 0, left.stderr
    on = kata("quiz", given="all\n3\nq\n")
    assert "1 to go on with from last time, 3 new." in on.stdout
    assert "You answered this" in on.stdout


def test_a_plan_keeps_its_deck(kata: Kata) -> None:
    """`plan`, `today` and `quiz` count its deck; other changes leave it, a new deck replaces it."""
    made = ("plan", "--interview", "2026-03-20", "--minutes-per-day", "600")
    plan = json.loads(kata(*made, "--json").stdout)
    assert plan["plan"]["deck"] == "core"
    core = plan["of"]
    plan = json.loads(kata("plan", "--deck", "all", "--json").stdout)
    assert (plan["plan"]["deck"], plan["of"]) == ("all", core + 2)
    assert "600 minutes, deck all." in kata("plan").stdout
    assert json.loads(kata("plan", "--minutes-per-day", "500", "--json").stdout)["of"] == core + 2
    assert _keys(kata) == CORE | FRONTIER
    assert "5 new." in kata("quiz", given="q\n").stdout
    assert "3 new." in kata("quiz", "--deck", "core", given="q\n").stdout
    plan = json.loads(kata("plan", "--deck", "frontier", "--json").stdout)
    assert plan["of"] == core - 1
    assert _keys(kata) == FRONTIER
    assert "2 new." in kata("quiz", "--topic", "lora", given="q\n").stdout


def test_a_deck_alone_makes_no_plan(kata: Kata) -> None:
    done = kata("plan", "--deck", "all")
    assert done.returncode == 2
    assert done.stderr == "error: A plan needs --interview DATE as well.\n"


@pytest.mark.parametrize(
    ("options", "deck"),
    [
        ((), "core"),
        (("--level", "junior"), "core"),
        (("--level", "senior"), "all"),
        (("--level", "staff"), "all"),
        (("--level", "staff", "--deck", "core"), "core"),
        (("--deck", "frontier"), "frontier"),
    ],
)
def test_a_mock_draws_on_the_other_deck_for_a_level(
    kata: Kata, options: tuple[str, ...], deck: str
) -> None:
    """Who names senior or staff is asked of both; a deck named decides."""
    outline = json.loads(kata("mock", "--plan", "--seed", "1", *options, "--json").stdout)
    assert outline["deck"] == deck
    page = kata("mock", "--plan", "--seed", "1", *options).stdout
    assert (f"deck {deck}" in page) == (deck != "core")


def test_a_mock_asks_of_its_deck_alone(clone: Path) -> None:
    """Whatever the seed, also on the kata that is written."""
    questions = bank.load(clone / "questions")
    for deck, ids in (("core", CORE), ("frontier", FRONTIER), ("all", CORE | FRONTIER)):
        papers = [
            setter.paper(Record(), catalog.cards(), questions, seed=n, minutes=60, deck=deck)
            for n in range(8)
        ]
        assert {ask.id for p in papers for round in p.rounds for ask in round.asks} == ids


def test_statistics_say_the_decks_apart(kata: Kata) -> None:
    """Topics are of the core deck; the other is a row of its own."""
    _begin(kata, "one")
    _begin(kata, "new-one")
    found = json.loads(kata("stats", "--json").stdout)
    counts = {row["name"]: (row["seen"], row["questions"]) for row in found["topics"]}
    assert (counts["lora"], counts["rank"]) == ((1, 2), (0, 1))
    decks = {row["name"]: (row["seen"], row["questions"]) for row in found["decks"]}
    assert decks == {"core": (1, 3), "frontier": (1, 2)}
    (row,) = (line for line in kata("stats").stdout.splitlines() if "frontier" in line)
    assert row.endswith("1 of 2 seen")


def test_exports_say_the_deck(kata: Kata, tmp_path: Path) -> None:
    """Anki: a tag and a sub-deck, under the same GUIDs as ever; JSON: the field."""
    path = tmp_path / "deck.txt"
    assert kata("export", "anki", str(path)).returncode == 0
    lines = [line for line in path.read_text().splitlines(keepends=True) if line[0] != "#"]
    rows = {row[0]: row for row in csv.reader(lines, delimiter="\t")}
    assert set(rows) == {f"lora-kata:{id}" for id in CORE | FRONTIER}
    assert rows["lora-kata:one"][4] == "LoRA interview"
    assert rows["lora-kata:new-one"][4] == "LoRA interview::Frontier"
    assert rows["lora-kata:new-one"][3].split()[-1] == "lora-kata::frontier"
    questions = json.loads(kata("export", "json").stdout)["questions"]
    assert {q["id"] for q in questions if q["deck"] == "frontier"} == FRONTIER


def test_wrong_usage(kata: Kata) -> None:
    done = kata("quiz", "--ask", "one", "--deck", "all")
    assert done.returncode == 2
    assert "--ask names one question" in done.stderr
    assert kata("quiz", "--undo", "--deck", "all").returncode == 2
    assert "'side' is not one of 'core', 'frontier', 'all'" in kata("quiz", "--deck", "side").stderr
