"""Broken off at every write and gone on with, the store ends as if nothing had happened."""

from pathlib import Path

import pytest
from breaking import (
    NOW,
    PAPER,
    Break,
    Breaks,
    breaks,
    home,
    judge,
    take,
    whole_and_broken,
)

from grader.interview import sitting as sittings
from grader.interview.sitting import Sitting
from grader.practice import grading, hunt
from grader.recall import bank, numbers, quiz
from grader.store import Store
from grader.store.attempts import Reason
from grader.store.memory import Rating

__all__ = ["breaks", "home"]  # fixtures


@pytest.mark.parametrize("killed", [True, False])
def test_a_mock(breaks: Breaks, home: Path, monkeypatch: pytest.MonkeyPatch, killed: bool) -> None:
    """With rounds of every kind: events, answers, attempts, ratings and cards are those of a mock
    held in one go, whether it was killed or left with Ctrl-C."""
    interview = sittings.begin(PAPER, NOW)
    numeric = next(q for q in bank.load() if q.numeric is not None)
    monkeypatch.setattr(bank, "question", lambda id: numeric)

    def play() -> None:
        sitting = Sitting(interview)
        try:
            sitting.start()
            while (step := sitting.step()) is not None:
                take(sitting, step)
        except Break:
            if not killed:
                sitting.leave("Ctrl-C")
            raise

    whole, broken, count = whole_and_broken(breaks, home, play)
    assert broken == whole
    assert count > 150
    assert [row["key"] for row in whole["reviews"]] == [
        "kata:lora_linear",
        *("question:typed", "question:number", "question:unnumbered", "question:aloud"),
        "bug:ia3_linear",
    ]
    slugs = [row["slug"] for row in whole["attempts"]]
    assert slugs == ["lora_linear", "lora_linear", "adapter_stack"]
    seen = [row["slug"] for row in whole["solutions_seen"]]
    assert seen == ["ia3_linear", "lora_linear", "adapter_stack"]  # the last two in the report
    assert whole["interviews"][0]["ended"]
    assert [(row["key"], row["text"], row["correct"] is None) for row in whole["answers"]] == [
        ("question:typed", "8", True),
        ("question:number", "8\nbecause", False),
        ("question:unnumbered", "\nbecause", True),
        ("question:aloud", "", True),
    ]


def test_an_abandoned_mock(breaks: Breaks, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given before stays, what was solved is rated, and it ends once."""
    interview = sittings.begin(PAPER, NOW)
    numeric = next(q for q in bank.load() if q.numeric is not None)
    monkeypatch.setattr(bank, "question", lambda id: numeric)

    def play() -> None:
        sitting = Sitting(interview)
        if sitting.state.over:
            return
        sitting.start()
        while not (sitting.round.last and sitting.round.last.passed):
            step = sitting.step()
            assert step is not None
            take(sitting, step)
        sitting.abandon()
        assert sitting.step() is None

    whole, broken, _ = whole_and_broken(breaks, home, play)
    assert broken == whole
    assert [row["key"] for row in whole["answers"]] == [
        *("question:typed", "question:number", "question:unnumbered"),
    ]
    assert [row["key"] for row in whole["reviews"]] == ["kata:lora_linear"]
    assert [row["slug"] for row in whole["solutions_seen"]] == ["lora_linear"]
    assert whole["interviews"][0]["ended"]
    assert [row["kind"] for row in whole["interview_events"]][-1] == "abandoned"


# A hunt, a quiz, an attempt


def test_a_hunt(breaks: Breaks, home: Path) -> None:
    """From planting to its rating: one diagnosis, one rating, and the hunt is closed."""

    def play() -> None:
        with Store.open(create=False) as store:
            if store.memory.reviews() and not hunt.opened():
                return
        bug = hunt.chosen_bug("lora_linear", 1)
        found = hunt.opened().get("lora_linear") or hunt.plant("lora_linear", bug, NOW)
        if found.hints == 0:
            found, _ = hunt.next_hint(found, NOW)
        if found.answer is None:
            found = hunt.diagnose(found, "the scale", NOW)
        if found.mended is None:
            found.path.write_bytes(b"right")
            found, graded = hunt.grade(found, judge, NOW)
            assert graded.trouble is None
        hunt.close(found, True, NOW)

    whole, broken, count = whole_and_broken(breaks, home, play)
    assert broken == whole
    assert count > 15
    assert [row["text"] for row in whole["answers"]] == ["the scale"]
    assert [row["rating"] for row in whole["reviews"]] == [Rating.GOOD]
    assert [row["value"] for row in whole["settings"]] == [""]
    assert len(whole["solutions_seen"]) == 1


def test_a_quiz(breaks: Breaks, home: Path) -> None:
    """A number where one is wanted (of the last question none is given), two lines of an answer,
    its end, its ticks, its rating: of each question once."""
    questions = [q for q in bank.load() if q.numeric is None][:2]
    questions += [q for q in bank.load() if q.numeric is not None][:2]

    def play() -> None:
        with Store.open(create=True) as store:
            sitting = quiz.Sitting(store.memory, questions, quiz.Options(), NOW)
            while (turn := sitting.next(NOW, 1)) is not None:
                if turn.wants_number:
                    last = turn.question.id == questions[-1].id
                    sitting.number(turn, "" if last else "8", NOW)
                if not turn.finished:
                    number = turn.question.numeric is not None
                    given = f"{numbers.first(turn.text)}\n" if number else ""
                    for text in (f"{given}one", f"{given}one\ntwo"):
                        if len(text) > len(turn.text):
                            sitting.draft(turn, text, NOW)
                    sitting.give(turn, f"{given}one\ntwo", NOW, 1.0)
                if turn.points is None:
                    sitting.tick(turn, (0, 1))
                sitting.rate(turn, Rating.GOOD, NOW)
            sitting.end(NOW)

    whole, broken, count = whole_and_broken(breaks, home, play)
    assert broken == whole
    assert count > 40
    assert [(row["text"], row["correct"] is None) for row in whole["answers"]] == [
        ("one\ntwo", True),
        ("one\ntwo", True),
        ("8\none\ntwo", False),
        ("\none\ntwo", True),
    ]
    assert [row["points"] for row in whole["answers"]] == ["[0, 1]"] * 4
    assert len(whole["reviews"]) == len(whole["cards"]) == 4


def test_an_attempt(breaks: Breaks, home: Path) -> None:
    """`kata run` on a kata begun from its stub: one attempt, one version kept, one rating."""
    with Store.open(create=True) as store:
        store.attempts.begin_round("lora_linear", NOW)
    file = home.with_name("lora_linear.py")
    file.write_bytes(b"right")

    def play() -> None:
        with Store.open(create=False) as store:
            if store.attempts.of("lora_linear"):
                return
        graded = grading.grade("lora_linear", file, judge, name="", now=NOW, keep=Reason.RUN)
        assert graded.trouble is None

    whole, broken, count = whole_and_broken(breaks, home, play)
    assert broken == whole
    assert count > 5
    assert len(whole["snapshots"]) == len(whole["attempts"]) == len(whole["reviews"]) == 1
