"""The paper of a mock interview: its rounds, and all that is asked in them.

It is stored whole, so that a sitting that goes on later asks the same, whatever became of the
question bank meanwhile.
"""

from enum import StrEnum

import msgspec

from grader.interview.choice import Grade
from grader.recall import numbers
from grader.recall.bank import CORE
from grader.store.database import from_row


class Kind(StrEnum):
    WARMUP = "warm-up"
    CODING = "coding"
    FOLLOWUPS = "follow-ups"
    HUNT = "bug hunt"
    DEBRIEF = "debrief"


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question as it is posed, numbers filled in. `draw` is the seed of its numbers,
    `followup` the place, from 0, of a follow-up among those of question `id`; a follow-up has
    no points."""

    id: str
    topic: str
    prompt: str
    answer: str
    points: tuple[str, ...] = ()
    draw: int = 0
    numeric: bool = False
    followup: int | None = None

    @property
    def key(self) -> str:
        return f"question:{self.id}"

    @property
    def asks_number(self) -> bool:
        """Whether an answer begins with a number."""
        return self.numeric and self.followup is None

    def without_number(self, answer: str) -> bool:
        """Whether this text of an answer lacks the number that was asked for."""
        return self.asks_number and not numbers.first(answer)


class Round(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`par` is the par time in minutes of what is coded or hunted, `slug` its kata, `bug` the
    mistake planted."""

    kind: Kind
    minutes: int
    par: int = 0
    slug: str | None = None
    bug: str | None = None
    asks: tuple[Ask, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.kind} · {self.slug}" if self.slug else str(self.kind)

    @property
    def on_code(self) -> bool:
        return self.kind in (Kind.CODING, Kind.HUNT)


class Paper(msgspec.Struct, frozen=True, kw_only=True):
    """`deck` is the one the questions are of; `notes` say where the options could not be met."""

    seed: int
    minutes: int
    level: Grade
    focus: str | None
    deck: str = CORE
    rounds: tuple[Round, ...]
    notes: tuple[str, ...] = ()


def encode(paper: Paper) -> str:
    return msgspec.json.encode(paper).decode()


@from_row
def decode(text: str) -> Paper:
    """A stored paper. Raises StoreError if the text is none."""
    return msgspec.json.decode(text, type=Paper)
