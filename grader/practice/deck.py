"""Cards, answers and ratings: what is remembered of questions, katas and bug hunts.

A card's key is `question:<id>`, `kata:<slug>` or `bug:<slug>`. Every write is one transaction;
times come in as arguments (aware, UTC).
"""

import json
from dataclasses import dataclass
from datetime import datetime

from grader.practice import schedule
from grader.practice.database import Database, file
from grader.practice.progress import stored_time
from grader.practice.schedule import Rating


@dataclass(frozen=True)
class Card:
    """One remembered thing. `memory` is what the scheduler knows of it."""

    key: str
    memory: str
    due: datetime


@dataclass(frozen=True)
class Answer:
    """What was answered. `draw` is the seed of the question's numbers, `points` the indices of
    the rubric points ticked (None: not revealed yet), `rating` what it was rated, if it was."""

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


class Deck:
    """The learner's cards over an open database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @classmethod
    def open(cls, *, create: bool) -> "Deck":
        """The user's own deck. Without `create` nothing is written where there is none."""
        return cls(Database(file(), create=create))

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> "Deck":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Cards

    def cards(self) -> dict[str, Card]:
        """Every card that was ever rated, by key."""
        rows = self._db.rows("SELECT * FROM cards")
        return {
            row["key"]: Card(row["key"], row["memory"], datetime.fromisoformat(row["due"]))
            for row in rows
        }

    def rate(self, key: str, rating: Rating, now: datetime, answer: int | None = None) -> Card:
        """Review a card (a new one too); returns it with its new due date."""
        with self._db.transaction():
            row = self._db.row("SELECT memory FROM cards WHERE key = ?", (key,))
            before = None if row is None else row["memory"]
            after = schedule.review(before, rating, now)
            self._db.insert(
                "INSERT INTO reviews (key, answer, at, rating, before) VALUES (?, ?, ?, ?, ?)",
                (key, answer, stored_time(now), int(rating), before),
            )
            self._db.insert(
                "INSERT OR REPLACE INTO cards VALUES (?, ?, ?)",
                (key, after.memory, stored_time(after.due)),
            )
        return Card(key, after.memory, after.due)

    def undo(self) -> tuple[str, Rating] | None:
        """Take the last rating back: its key and rating, or None if there is none."""
        with self._db.transaction():
            row = self._db.row("SELECT * FROM reviews WHERE NOT undone ORDER BY id DESC LIMIT 1")
            if row is None:
                return None
            self._db.rows("UPDATE reviews SET undone = 1 WHERE id = ?", (row["id"],))
            if row["before"] is None:
                self._db.rows("DELETE FROM cards WHERE key = ?", (row["key"],))
            else:
                due = schedule.due_of(row["before"])
                self._db.insert(
                    "INSERT OR REPLACE INTO cards VALUES (?, ?, ?)",
                    (row["key"], row["before"], stored_time(due)),
                )
        return row["key"], Rating(row["rating"])

    def reviews(self) -> list[tuple[str, datetime, Rating]]:
        """Every rating that stands, oldest first: key, time, rating."""
        rows = self._db.rows("SELECT * FROM reviews WHERE NOT undone ORDER BY id")
        return [(r["key"], datetime.fromisoformat(r["at"]), Rating(r["rating"])) for r in rows]

    # Quizzes and answers

    def begin_quiz(self, options: dict[str, object], now: datetime) -> int:
        with self._db.transaction():
            return self._db.insert(
                "INSERT INTO quizzes (at, options) VALUES (?, ?)",
                (stored_time(now), json.dumps(options)),
            )

    def end_quiz(self, quiz: int, now: datetime) -> None:
        with self._db.transaction():
            self._db.rows("UPDATE quizzes SET ended = ? WHERE id = ?", (stored_time(now), quiz))

    def answer(
        self,
        key: str,
        text: str,
        now: datetime,
        *,
        seconds: float,
        draw: int = 0,
        correct: bool | None = None,
        quiz: int | None = None,
        interview: int | None = None,
    ) -> int:
        """Store an answer as it was given; returns its id."""
        with self._db.transaction():
            return self._db.insert(
                "INSERT INTO answers (key, quiz, interview, at, seconds, draw, text, correct)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (key, quiz, interview, stored_time(now), seconds, draw, text, correct),
            )

    def tick(self, answer: int, points: tuple[int, ...]) -> None:
        """Store which points of the rubric an answer said."""
        with self._db.transaction():
            self._db.rows(
                "UPDATE answers SET points = ? WHERE id = ?", (json.dumps(points), answer)
            )

    def answers(self) -> list[Answer]:
        """All answers, oldest first."""
        rows = self._db.rows(
            "SELECT answers.*, (SELECT rating FROM reviews WHERE reviews.answer = answers.id"
            " AND NOT undone ORDER BY reviews.id DESC LIMIT 1) AS rating FROM answers ORDER BY id"
        )
        return [
            Answer(
                row["id"],
                row["key"],
                row["quiz"],
                row["interview"],
                datetime.fromisoformat(row["at"]),
                row["seconds"],
                row["draw"],
                row["text"],
                None if row["correct"] is None else bool(row["correct"]),
                None if row["points"] is None else tuple(json.loads(row["points"])),
                None if row["rating"] is None else Rating(row["rating"]),
            )
            for row in rows
        ]
