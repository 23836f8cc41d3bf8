"""What a sitting can ask for next; each step names the methods of a `Sitting` that answer it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.catalog import Bug
from grader.interview.events import Answered, Graded
from grader.interview.paper import Ask


@dataclass(frozen=True)
class Begin:
    """A round is to be entered, with `enter`; `again`: one that was broken off."""

    again: bool


@dataclass(frozen=True)
class Question:
    """To be answered: lines with `write`, then `answer` or `skip`. `typed` are the lines so far;
    `number`: the first is to be a number, or empty where none is given; `right`: whether the
    number typed is the right one, None where none was; `draft`: what stands in a page beside
    `typed`, and can be changed with `draft` or become lines with `adopt`."""

    ask: Ask
    place: int
    typed: Sequence[str]
    number: bool
    right: bool | None = None
    draft: str = ""


@dataclass(frozen=True)
class Work:
    """A file to be worked on: `grade`, `hint`, `diagnose`, then `end`. `unsaid`: it is a hunt, and
    what is wrong is to be said first."""

    slug: str
    path: Path
    unsaid: bool


@dataclass(frozen=True)
class Mistakes:
    """What the best grading of a coding round found wrong; `seen` goes on."""

    round: int
    slug: str
    best: Graded
    bugs: Sequence[Bug]


@dataclass(frozen=True)
class Compare:
    """An answer beside a good one: `tick` the points said if it is to be judged by points, or
    else `weigh` it; one that was skipped weighs nothing."""

    round: int
    place: int
    ask: Ask
    answer: Answered
    by_points: bool


@dataclass(frozen=True)
class Reveal:
    """A hunt's bug: `judge` whether the diagnosis, if there is one, named it. `change` is the
    lines of the reference and what stood there."""

    round: int
    slug: str
    bug: Bug
    change: tuple[Sequence[str], Sequence[str]]
    diagnosis: str


@dataclass(frozen=True)
class End:
    """Nothing is left of the round: `end` it."""


Step = Begin | Question | Work | Mistakes | Compare | Reveal | End


@dataclass(frozen=True)
class Hint:
    """Rung `rung` of the `of` that there are."""

    rung: int
    of: int
    text: str
