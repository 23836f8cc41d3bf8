"""When things come back: FSRS for questions and katas, taking back, clocks that are set."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from grader.exam.verdict import Check, Outcome, Part, Verdict
from grader.practice import grading, repetition, schedule
from grader.store import Store
from grader.store.attempts import Reason
from grader.store.database import file
from grader.store.memory import Rating
from grader.views.plain import when

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The progress file of this test."""
    monkeypatch.setenv("KATA_HOME", str(tmp_path))
    with Store(tmp_path / "progress.db", create=True) as opened:
        yield opened


def test_a_card_that_is_always_good() -> None:
    """Each interval is longer than the last; FSRS's own weights, pinned in one line."""
    memory, now, days = None, NOW, []
    for _ in range(5):
        after = schedule.review(memory, Rating.GOOD, now)
        days.append((after.due - now).days)
        memory, now = after.memory, after.due
    assert days == [2, 11, 46, 163, 497]


def test_forgotten_cards_come_back_soon() -> None:
    """Again and hard bring a new card back within the hour; recall falls with time."""
    for rating in (Rating.AGAIN, Rating.HARD):
        assert schedule.review(None, rating, NOW).due - NOW < timedelta(hours=1)
    memory = schedule.review(None, Rating.GOOD, NOW).memory
    recalls = [schedule.recall(memory, NOW + DAY * days) for days in (0, 2, 30)]
    assert recalls == sorted(recalls, reverse=True)
    assert recalls[1] == pytest.approx(schedule.DESIRED_RECALL, abs=0.02)
    assert schedule.recall(None, NOW) == 0


def test_clock_set_back_counts_as_no_time() -> None:
    """A review before the last one is one at the same moment."""
    first = schedule.review(None, Rating.GOOD, NOW)
    back = schedule.review(first.memory, Rating.GOOD, NOW - 30 * DAY)
    assert back == schedule.review(first.memory, Rating.GOOD, NOW)


def test_day_ends_at_four() -> None:
    """A night's practice belongs to the day before, by the learner's own clock."""
    zone = timezone(timedelta(hours=2))
    late = datetime(2026, 3, 3, 1, tzinfo=zone)
    assert schedule.day_end(late) == datetime(2026, 3, 3, 4, tzinfo=zone)
    assert schedule.day_end(late + 4 * timedelta(hours=1)) == datetime(2026, 3, 4, 4, tzinfo=zone)


@pytest.mark.parametrize(
    ("share", "correct", "rating"),
    [
        (1.0, None, Rating.EASY),
        (0.6, None, Rating.GOOD),
        (0.4, None, Rating.HARD),
        (0.2, None, Rating.AGAIN),
        (1.0, True, Rating.EASY),
        (0.0, True, Rating.HARD),
        (1.0, False, Rating.HARD),
        (0.2, False, Rating.AGAIN),
    ],
)
def test_suggested(share: float, correct: bool | None, rating: Rating) -> None:
    """The share of points speaks for a rating; a wrong number for no more than hard."""
    assert schedule.suggested(share, correct) is rating


@pytest.mark.parametrize(
    ("seconds", "hints", "saw", "rating"),
    [
        (300, 0, False, Rating.EASY),
        (900, 0, False, Rating.GOOD),
        (300, 1, False, Rating.GOOD),
        (300, 2, False, Rating.HARD),
        (2000, 0, False, Rating.HARD),
        (300, 4, False, Rating.AGAIN),
        (300, 0, True, Rating.AGAIN),
    ],
)
def test_solved(seconds: float, hints: int, saw: bool, rating: Rating) -> None:
    """A kata is rated by time against par (900 s here) and by the help used."""
    assert schedule.solved(seconds, 900, hints, saw) is rating


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (-DAY, "now"),
        (timedelta(minutes=10), "in 10 minutes"),
        (timedelta(seconds=5), "in 1 minute"),
        (timedelta(hours=5), "in 5 hours"),
        (DAY, "tomorrow"),
        (5 * DAY, "on 7 March (in 5 days)"),
        (400 * DAY, "on 6 April 2027 (in 400 days)"),
    ],
)
def test_when(later: timedelta, words: str) -> None:
    """Due dates in words."""
    local = NOW.astimezone()
    assert when(local + later, local) == words


# Taking back


def test_undo_restores_the_card(store: Store) -> None:
    """Taking ratings back leads through the same memories to no card at all."""
    memory, memories = store.memory, []
    quiz = memory.begin_quiz({}, NOW)
    for days, rating in enumerate((Rating.GOOD, Rating.AGAIN, Rating.HARD)):
        answer = memory.answer("question:x", "", NOW + days * DAY, seconds=1, quiz=quiz)
        memories.append(
            repetition.rate(memory, "question:x", rating, NOW + days * DAY, answer).memory
        )
    for rating in (Rating.HARD, Rating.AGAIN, Rating.GOOD):
        assert memory.cards()["question:x"].memory == memories.pop()
        undone = repetition.undo(memory)
        assert undone is not None
        assert undone.rating is rating
    assert memory.cards() == {}
    assert memory.reviews() == []
    assert repetition.undo(memory) is None


def test_undo_leaves_later_reviews(store: Store) -> None:
    """A rating taken back under a later one from another quiz: the later one stands alone."""
    memory = store.memory
    one, two = memory.begin_quiz({}, NOW), memory.begin_quiz({}, NOW)
    for quiz, rating in ((one, Rating.AGAIN), (two, Rating.GOOD)):
        answer = memory.answer("question:x", "", NOW, seconds=1, quiz=quiz)
        repetition.rate(memory, "question:x", rating, NOW, answer)
    assert repetition.undo(memory, one) is not None
    assert memory.cards()["question:x"].memory == schedule.review(None, Rating.GOOD, NOW).memory
    assert [review.rating for review in memory.reviews()] == [Rating.GOOD]
    assert repetition.undo(memory, one) is None


def test_undo_takes_no_katas_back(store: Store) -> None:
    """Only ratings of a quiz are taken back."""
    memory = store.memory
    repetition.rate(memory, "kata:lora_linear", Rating.GOOD, NOW)
    assert repetition.undo(memory) is None
    assert "kata:lora_linear" in memory.cards()


# Katas


def _verdict(passed: bool = True, only: Part | None = None) -> Verdict:
    outcome = Outcome.PASSED if passed else Outcome.FAILED
    checks = (Check(name="rule", part=Part.SHAPE, outcome=outcome),)
    return Verdict(slug="lora_linear", seed=7, checks=checks, seconds=0.1, only=only)


def _run(after: timedelta, verdict: Verdict) -> datetime | None:
    """An attempt so long after NOW; when the kata is due again, if that rated it."""
    path = file().with_name("lora_linear.py")
    path.write_bytes(b"source")
    graded = grading.grade(
        "lora_linear",
        path,
        lambda slug, source, name: verdict,
        name="",
        now=NOW + after,
        keep=Reason.RUN,
    )
    assert graded.recorded is not None
    return graded.recorded.due


def test_a_pass_rates_once_a_round(store: Store) -> None:
    """The first whole pass of a round rates the kata, at the time it took; the next round may
    rate it again."""
    minute = timedelta(minutes=1)
    memory, attempts = store.memory, store.attempts
    attempts.begin_round("lora_linear", NOW)
    assert _run(5 * minute, _verdict(passed=False)) is None
    assert _run(6 * minute, _verdict(only=Part.SHAPE)) is None
    due = _run(14 * minute, _verdict())  # par is 15
    assert due == memory.cards()["kata:lora_linear"].due
    assert _run(15 * minute, _verdict()) is None
    assert [review.rating for review in memory.reviews()] == [Rating.GOOD]
    attempts.begin_round("lora_linear", NOW + 3 * DAY)
    assert _run(3 * DAY + 5 * minute, _verdict()) is not None
    assert [review.rating for review in memory.reviews()] == [Rating.GOOD, Rating.EASY]


def test_help_counts_in_its_round_only(store: Store) -> None:
    """A solution seen in the round makes it `again`; one seen in an earlier round does not."""
    memory, attempts = store.memory, store.attempts
    attempts.begin_round("lora_linear", NOW)
    attempts.saw_solution("lora_linear", NOW)
    assert _run(timedelta(minutes=2), _verdict()) is not None
    attempts.begin_round("lora_linear", NOW + DAY)
    for _ in range(2):
        attempts.next_hint("lora_linear", 4, NOW + DAY)
    assert _run(DAY + timedelta(minutes=2), _verdict()) is not None
    assert [review.rating for review in memory.reviews()] == [Rating.AGAIN, Rating.HARD]


def test_an_early_look_at_the_solution_counts(store: Store) -> None:
    """Whenever the round began; a day later it does not."""
    minute = timedelta(minutes=1)
    store.attempts.saw_solution("lora_linear", NOW)
    store.attempts.begin_round("lora_linear", NOW + minute)
    assert _run(5 * minute, _verdict()) is not None
    store.attempts.begin_round("lora_linear", NOW + 2 * DAY)
    assert _run(2 * DAY + 5 * minute, _verdict()) is not None
    assert [review.rating for review in store.memory.reviews()] == [Rating.AGAIN, Rating.EASY]


def test_the_first_pass_without_a_start_is_rated(store: Store) -> None:
    """By the help used alone; later ones are not, and neither is old work brought back."""
    attempts = store.attempts
    assert _run(timedelta(0), _verdict()) is not None
    assert _run(timedelta(minutes=1), _verdict()) is None
    assert [review.rating for review in store.memory.reviews()] == [Rating.GOOD]
    old = attempts.snapshots("lora_linear")[-1]
    attempts.begin_round("lora_linear", NOW + DAY)
    assert attempts.untime_round("lora_linear", old)
    assert _run(2 * DAY, _verdict()) is None
    assert len(store.memory.reviews()) == 1


def test_clock_set_back_in_a_round(store: Store) -> None:
    """Without a time the help used decides alone."""
    store.attempts.begin_round("lora_linear", NOW)
    assert _run(-DAY, _verdict()) is not None
    assert [review.rating for review in store.memory.reviews()] == [Rating.GOOD]
