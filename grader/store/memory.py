"""Cards, reviews and answers: what is remembered of questions, katas and bug hunts.

A card's key is `question:<id>`, `kata:<slug>` or `bug:<slug>`. Every write is one transaction;
times come in as arguments (aware, UTC). When a card is due again is not decided here.
"""

import json
import os
from datetime import datetime
from enum import IntEnum
from typing import Any

import msgspec

from grader.store.database import Section, from_row, read_time, stored_time
from grader.store.work import Work


class Rating(IntEnum):
    AGAIN = 1
    HARD = 2
    GOOD = 3
    EASY = 4


class MemoryCard(msgspec.Struct, frozen=True):
    """One remembered thing. `memory` is what the scheduler knows of it."""

    key: str
    memory: str
    due: datetime


class Review(msgspec.Struct, frozen=True):
    """A rating of a card, and of the answer with that id if there was one. `before` is the card's
    memory until then, None for the first rating."""

    id: int
    key: str
    answer: int | None
    at: datetime
    rating: Rating
    before: str | None


class Answer(msgspec.Struct, frozen=True):
    """What was answered. `draw` is the seed of the question's numbers, `points` the indices of
    the rubric points ticked (None: not revealed yet), `rating` what it was rated, if it was.
    `finished` is false while it is being given; `seconds` is 0 then."""

    id: int
    key: str
    quiz: int | None
    interview: int | None
    at: datetime
    seconds: float
    draw: int
    text: str
    correct: bool | None
    points: tuple[int, ...] | None
    rating: Rating | None
    finished: bool = True


class Memory(Section):
    """What the learner remembers, and what was asked to find that out."""

    @property
    def work(self) -> Work:
        """The time that it took."""
        return Work(self._db)

    # Cards

    def cards(self) -> dict[str, MemoryCard]:
        """Every card that was ever rated, by key."""
        return {row["key"]: _card(row) for row in self._db.rows("SELECT * FROM cards")}

    def card(self, key: str) -> MemoryCard | None:
        row = self._db.row("SELECT * FROM cards WHERE key = ?", (key,))
        return None if row is None else _card(row)

    def put(self, card: MemoryCard) -> None:
        """Store a card, a new one too."""
        with self._db.transaction():
            self._db.insert(
                "INSERT OR REPLACE INTO cards VALUES (?, ?, ?)",
                (card.key, card.memory, stored_time(card.due)),
            )

    def forget(self, key: str) -> None:
        """The card is as if it had never been rated."""
        with self._db.transaction():
            self._db.rows("DELETE FROM cards WHERE key = ?", (key,))

    # Reviews

    def add_review(
        self, key: str, rating: Rating, now: datetime, before: str | None, answer: int | None
    ) -> None:
        """Store a rating, and what it rests on: the memory before it, the answer rated."""
        with self._db.transaction():
            self._db.insert(
                "INSERT INTO reviews (key, answer, at, rating, before) VALUES (?, ?, ?, ?, ?)",
                (key, answer, stored_time(now), int(rating), before),
            )

    def reviews(self, key: str | None = None) -> list[Review]:
        """Every rating that stands, or those of one card, oldest first."""
        rows = self._db.rows(
            "SELECT * FROM reviews WHERE NOT undone AND (? IS NULL OR key = ?) ORDER BY uid",
            (key, key),
        )
        return [_review(row) for row in rows]

    def rated(self) -> list[str]:
        """The keys of all that was ever rated, also if that was taken back."""
        return [row["key"] for row in self._db.rows("SELECT DISTINCT key FROM reviews")]

    def last_rated(self, quiz: int | None = None) -> tuple[Review, Answer] | None:
        """The last rating that stands of a quiz's answer, of this quiz or of any."""
        row = self._db.row(
            "SELECT reviews.* FROM reviews JOIN answers ON answers.id = reviews.answer"
            " WHERE NOT undone AND answers.quiz IS NOT NULL AND (? IS NULL OR quiz = ?)"
            " ORDER BY reviews.uid DESC LIMIT 1",
            (quiz, quiz),
        )
        if row is None:
            return None
        (answer,) = self._answers("WHERE answers.id = ?", (row["answer"],))
        return _review(row), answer

    def take_back(self, review: Review) -> None:
        """A rating stands no longer."""
        with self._db.transaction():
            self._db.rows("UPDATE reviews SET undone = 1 WHERE id = ?", (review.id,))

    def rebase(self, review: Review, before: str | None) -> None:
        """A rating was given on another memory than it seemed."""
        with self._db.transaction():
            self._db.rows("UPDATE reviews SET before = ? WHERE id = ?", (before, review.id))

    # Quizzes and answers

    def begin_quiz(self, options: dict[str, object], now: datetime) -> int:
        """A new sitting of this process; returns its id."""
        with self._db.transaction():
            return self._db.insert(
                "INSERT INTO quizzes (at, options) VALUES (?, ?)",
                (stored_time(now), json.dumps({**options, "pid": os.getpid()})),
            )

    def end_quiz(self, quiz: int, now: datetime) -> None:
        with self._db.transaction():
            self._db.rows("UPDATE quizzes SET ended = ? WHERE id = ?", (stored_time(now), quiz))

    def take_over(self, quiz: int, since: datetime) -> list[Answer]:
        """Answers given since then in quizzes that have ended or were killed, and never rated:
        they belong to `quiz` from now on. Oldest first; those of a cram session do not count."""
        with self._db.transaction():
            rows = self._db.rows(
                "SELECT answers.id, quizzes.ended, quizzes.options FROM answers"
                " JOIN quizzes ON quizzes.id = answers.quiz"
                " WHERE answers.at >= ? AND answers.key LIKE 'question:%' AND NOT EXISTS"
                " (SELECT 1 FROM answers AS later WHERE later.key = answers.key"
                " AND later.uid > answers.uid)"
                " AND NOT EXISTS (SELECT 1 FROM reviews"
                " WHERE reviews.answer = answers.id AND NOT undone)",
                (stored_time(since),),
            )
            found = [row["id"] for row in rows if _left(row)]
            for id in found:
                self._db.rows("UPDATE answers SET quiz = ? WHERE id = ?", (quiz, id))
            return [a for id in found for a in self._answers("WHERE answers.id = ?", (id,))]

    def answer(
        self,
        key: str,
        text: str,
        now: datetime,
        *,
        seconds: float | None,
        draw: int = 0,
        correct: bool | None = None,
        quiz: int | None = None,
        interview: int | None = None,
    ) -> int:
        """Store an answer as it was given; returns its id. `seconds` is None while it is still
        being given."""
        with self._db.transaction():
            return self._db.insert(
                "INSERT INTO answers (key, quiz, interview, at, seconds, draw, text, correct)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (key, quiz, interview, stored_time(now), seconds, draw, text, correct),
            )

    def begin_answer(self, key: str, text: str, now: datetime, *, draw: int, quiz: int) -> int:
        """Store the first lines of an answer that is still being given; returns its id."""
        return self.answer(key, text, now, seconds=None, draw=draw, quiz=quiz)

    def continue_answer(self, answer: int, text: str) -> None:
        """Store what an answer says so far."""
        with self._db.transaction():
            self._db.rows("UPDATE answers SET text = ? WHERE id = ?", (text, answer))

    def finish_answer(self, answer: int, now: datetime, seconds: float) -> None:
        """An answer is complete; `seconds` is what it took."""
        with self._db.transaction():
            self._db.rows(
                "UPDATE answers SET at = ?, seconds = ? WHERE id = ?",
                (stored_time(now), seconds, answer),
            )

    def tick(self, answer: int, points: tuple[int, ...]) -> None:
        """Store which points of the rubric an answer said."""
        with self._db.transaction():
            self._db.rows(
                "UPDATE answers SET points = ? WHERE id = ?", (json.dumps(points), answer)
            )

    def answers(self, key: str | None = None) -> list[Answer]:
        """All answers, or those to one thing, oldest first."""
        return self._answers("WHERE ? IS NULL OR answers.key = ?", (key, key))

    def _answers(self, where: str, values: tuple[Any, ...]) -> list[Answer]:
        rows = self._db.rows(
            "SELECT answers.*, (SELECT rating FROM reviews WHERE reviews.answer = answers.id"
            " AND NOT undone ORDER BY reviews.uid DESC LIMIT 1) AS rating"
            f" FROM answers {where}"
            " ORDER BY answers.uid",
            values,
        )
        return [_answer(row) for row in rows]


@from_row
def _left(row: Any) -> bool:
    """Whether the quiz of an answer is over, so that another may take the answer over."""
    options = json.loads(row["options"])
    return not options.get("cram") and (row["ended"] is not None or not _runs(options.get("pid")))


def _runs(pid: object) -> bool:
    """Whether a process of that number runs, other than this one, which has just begun."""
    if not isinstance(pid, int) or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _card(row: Any) -> MemoryCard:
    return MemoryCard(row["key"], row["memory"], read_time(row["due"]))


@from_row
def _review(row: Any) -> Review:
    return Review(
        row["id"],
        row["key"],
        row["answer"],
        read_time(row["at"]),
        Rating(row["rating"]),
        row["before"],
    )


@from_row
def _answer(row: Any) -> Answer:
    return Answer(
        row["id"],
        row["key"],
        row["quiz"],
        row["interview"],
        read_time(row["at"]),
        row["seconds"] or 0.0,
        row["draw"],
        row["text"],
        None if row["correct"] is None else bool(row["correct"]),
        None if row["points"] is None else tuple(json.loads(row["points"])),
        None if row["rating"] is None else Rating(row["rating"]),
        row["seconds"] is not None,
    )
