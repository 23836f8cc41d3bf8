"""Breaking off at every write, for engines and for the pages that call them.

A break comes before a statement that writes, or right after a commit: there it finds what a
Ctrl-C, a kill or a full disk would. The clock stands still, so that times are equal, too.
"""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from grader.exam.verdict import Check, Outcome, Part, Trouble, Verdict
from grader.interview.choice import Grade
from grader.interview.paper import Ask, Kind, Paper, Round
from grader.interview.sitting import Sitting
from grader.interview.steps import (
    Begin,
    Compare,
    End,
    Mistakes,
    Question,
    Reveal,
    Step,
    Work,
)
from grader.store.database import Database

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
STOPS = {"paused", "resumed", "beat"}
_WRITES = ("BEGIN", "COMMIT", "INSERT", "UPDATE", "DELETE")

State = dict[str, list[dict[str, Any]]]


class Break(BaseException):
    """What is at work is broken off here."""


class Breaks:
    """Counts the places where a break may come, and breaks at one of them."""

    def __init__(self) -> None:
        self.passed, self.at = 0, -1

    def place(self) -> None:
        self.passed += 1
        if self.passed == self.at:
            raise Break


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Breaks:
    found = Breaks()

    class Connection(sqlite3.Connection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            super().execute("PRAGMA synchronous = OFF")  # no power fails here, and it is faster

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql.startswith(_WRITES):
                found.place()
            cursor = super().execute(sql, *args)
            if sql == "COMMIT":
                found.place()
            return cursor

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Connection))
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder, with an empty store."""
    folder = tmp_path / "home"
    monkeypatch.setenv("KATA_HOME", str(folder))
    monkeypatch.setenv("KATA_CLOCK", f"{NOW.isoformat()} x0")
    Database(folder / "progress.db", create=True).close()
    return folder


def whole_and_broken(
    breaks: Breaks, home: Path, play: Callable[[], None]
) -> tuple[State, State, int]:
    """The end state without a break, that with one at every place, and how many these were.

    `play` goes on to the end from whatever is stored. It is broken off at its first place, then
    at its second, and so on until something new is stored; from there at its first place again.
    """
    template = home.with_name("template")
    shutil.copytree(home, template)
    play()
    whole = stored(home)
    shutil.rmtree(home)
    shutil.copytree(template, home)
    count, before = 0, stored(home)
    breaks.passed, breaks.at = 0, 1
    while True:
        try:
            play()
        except Break:
            count += 1
            assert count < 1000, "it stores the same over and over"
        else:
            return whole, stored(home), count
        at, breaks.at = breaks.at, -1
        now = stored(home)
        breaks.passed, breaks.at = 0, at + 1 if now == before else 1
        before = now


def stored(home: Path) -> State:
    """All that counts in the store, as plain values."""
    state: State = {}
    with closing(Database(home / "progress.db", create=False)) as database:
        tables = [row["name"] for row in database.rows("SELECT name FROM sqlite_master")]
        for table in {*tables} & {
            *("snapshots", "rounds", "attempts", "hints_seen", "solutions_seen", "settings"),
            *("cards", "answers", "reviews", "interviews", "interview_events", "work"),
        }:
            rows = [dict(row) for row in database.rows(f"SELECT * FROM {table} ORDER BY 1")]
            for row in rows:
                row.pop("uid", None)  # drawn
                row.pop("changed", None)  # by the system's clock
            state[table] = [row for row in rows if row.get("kind") not in STOPS]
    for event in state["interview_events"]:
        del event["id"]  # pauses lie between
    for answer in state["answers"]:
        del answer["quiz"]  # a quiz that goes on is another one
    assert len(state) == 12
    return state


def judge(slug: str, source: bytes | Trouble, name: str) -> Verdict:
    """What says that it is right is right."""
    outcome = Outcome.PASSED if source == b"right" else Outcome.FAILED
    checks = (Check(name="rule", part=Part.SHAPE, outcome=outcome),)
    return Verdict(slug=slug, seed=7, checks=checks, seconds=0.1)


# A mock interview, and a learner who sits it


def _ask(id: str, **fields: Any) -> Ask:
    return Ask(id=id, topic="lora", prompt=f"{id}?", answer=f"{id}.", **fields)


PAPER = Paper(
    seed=1,
    minutes=45,
    level=Grade.SENIOR,
    focus=None,
    rounds=(
        Round(
            kind=Kind.WARMUP,
            minutes=5,
            asks=(
                _ask("typed", points=("One.", "Two.", "Three.")),
                _ask("number", points=("One.", "Two."), numeric=True, draw=3),
                _ask("unnumbered", points=("One.", "Two."), numeric=True, draw=3),
                _ask("skipped", points=("One.",)),
            ),
        ),
        Round(kind=Kind.CODING, minutes=15, par=15, slug="lora_linear"),
        Round(
            kind=Kind.FOLLOWUPS,
            minutes=5,
            asks=(_ask("aloud", points=("One.",)), _ask("aloud", followup=0)),
        ),
        Round(kind=Kind.CODING, minutes=10, par=10, slug="adapter_stack"),
        Round(kind=Kind.HUNT, minutes=5, par=5, slug="ia3_linear", bug="scale-added"),
        Round(kind=Kind.DEBRIEF, minutes=5),
    ),
)


def take(sitting: Sitting, step: Step) -> None:
    """One step as this learner takes it, by what is stored alone."""
    last = sitting.round.last
    match step:
        case Begin():
            sitting.enter()
        case Question(typed=[]) if step.number or step.ask.id == "typed":
            sitting.write("" if step.ask.id == "unnumbered" else "8")
        case Question(typed=[_]) if step.ask.asks_number:
            sitting.write("because")
        case Question() if step.ask.id == "skipped":
            sitting.skip()
        case Question():
            sitting.answer()
        case Work() if step.unsaid:
            sitting.diagnose("the scale")
        case Work() if sitting.round.hints == 0:
            sitting.hint()
        case Work() if last is None:
            step.path.write_bytes(b"wrong")
            sitting.grade(judge, "enter")
        case Work() if last and not last.passed and step.slug != "adapter_stack":
            step.path.write_bytes(b"right")
            sitting.grade(judge, "save")
        case Work():
            assert not sitting.changed  # and nothing is graded again
            sitting.end()
        case Mistakes():
            sitting.seen()
        case Compare() if step.by_points:
            sitting.tick((0,))
        case Compare():
            sitting.weigh(0.5)
        case Reveal():
            sitting.judge(True)
        case End():
            sitting.end()
