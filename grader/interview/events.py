"""What happens in a sitting, and what it adds up to.

Everything is an event, stored as it happens; the state is a fold over them, so that a sitting
that was broken off anywhere goes on from its events alone. Times are seconds on the interview's
own clock, which pauses stop.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from grader.exam.verdict import CORE, Level, Outcome, Part, Verdict
from grader.interview.paper import Paper, Round
from grader.store.database import from_row


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    pass


class Began(_Event, frozen=True):
    """A round begins."""

    round: int


class Typed(_Event, frozen=True):
    """A line of an answer that is not finished yet."""

    round: int
    ask: int
    text: str


class Answered(_Event, frozen=True):
    """`text` is empty where the answer was said aloud; `correct` None where nothing was
    computed, and `why` the slip that gives a wrong number."""

    round: int
    ask: int
    seconds: float
    text: str = ""
    skipped: bool = False
    correct: bool | None = None
    why: str | None = None


class Ticked(_Event, frozen=True):
    """How much of an answer's rubric was said: the points by index, and their share, 0 to 1."""

    round: int
    ask: int
    share: float
    said: tuple[int, ...] = ()


class Graded(_Event, frozen=True):
    """Checks passed and run, by part; `bugs` are the mistakes named, by id; `by` is what set the
    grading off: enter, save or next. `error` is the kind of trouble that kept the file from
    being judged, `snapshot` the version kept of it, `sha256` tells the file from others;
    `started` is false for an unwritten stub."""

    round: int
    by: str
    passed: bool
    level: Level
    parts: dict[str, tuple[int, int]]
    bugs: tuple[str, ...] = ()
    error: str | None = None
    snapshot: int | None = None
    sha256: str | None = None
    started: bool = True

    @property
    def core(self) -> tuple[int, int]:
        return _sum(counts for part, counts in self.parts.items() if part in CORE)

    @property
    def beyond(self) -> tuple[int, int]:
        return _sum(counts for part, counts in self.parts.items() if part not in CORE)


def _sum(counts: Iterable[tuple[int, int]]) -> tuple[int, int]:
    pairs = list(counts)
    return sum(passed for passed, _ in pairs), sum(ran for _, ran in pairs)


class Hinted(_Event, frozen=True):
    round: int
    rung: int


class Diagnosed(_Event, frozen=True):
    round: int
    text: str


class Judged(_Event, frozen=True):
    """Whether the diagnosis of a hunt named the bug, as the learner says after the reveal."""

    round: int
    right: bool


class Warned(_Event, frozen=True):
    """The learner was told that so many minutes are left; 0: that time is up."""

    round: int
    minutes: int


class Paused(_Event, frozen=True):
    reason: str = ""


class Resumed(_Event, frozen=True):
    """`away_s`: seconds since the last event on the clock on the wall, None in older records. One
    that no pause came before follows a kill."""

    away_s: float | None = None


class Ended(_Event, frozen=True):
    """The learner moved on from a round."""

    round: int


class Abandoned(_Event, frozen=True):
    """The learner gave the interview up before its end."""


class Beat(_Event, frozen=True):
    """Nothing happened but time: what a killed sitting's clock goes on from."""


Event = (
    Began
    | Typed
    | Answered
    | Ticked
    | Graded
    | Hinted
    | Diagnosed
    | Judged
    | Warned
    | Paused
    | Resumed
    | Ended
    | Abandoned
    | Beat
)


def encode(event: Event) -> tuple[str, dict[str, Any]]:
    """An event's kind and its fields, as plain values."""
    fields = msgspec.to_builtins(event)
    return fields.pop("kind"), fields


@from_row
def decode(kind: str, fields: Mapping[str, Any]) -> Event:
    """A stored event. Raises StoreError if it is none."""
    event: Event = msgspec.convert({"kind": kind, **fields}, Event)
    return event


def graded(verdict: Verdict, round: int, by: str, snapshot: int | None, sha256: str) -> Graded:
    """A verdict as an event."""
    parts: dict[str, tuple[int, int]] = {}
    for check in verdict.checks:
        unrun = check.part is Part.GPU and check.outcome is Outcome.ERROR
        if check.outcome is not Outcome.SKIPPED and not unrun:
            passed, ran = parts.get(check.part, (0, 0))
            parts[check.part] = passed + (check.outcome is Outcome.PASSED), ran + 1
    return Graded(
        round=round,
        by=by,
        passed=verdict.passed,
        level=verdict.level,
        parts=parts,
        bugs=tuple(dict.fromkeys(c.bug for c in verdict.checks if c.bug)),
        error=verdict.error.kind if verdict.error else None,
        snapshot=snapshot,
        sha256=sha256,
        started=verdict.started,
    )


@dataclass
class RoundState:
    """One round so far. `gradings` are with the clock's seconds since the round began."""

    round: Round
    began: float | None = None
    ended: float | None = None
    typed: dict[int, list[str]] = field(default_factory=dict)
    answers: dict[int, Answered] = field(default_factory=dict)
    ticks: dict[int, Ticked] = field(default_factory=dict)
    gradings: list[tuple[float, Graded]] = field(default_factory=list)
    hints: int = 0
    diagnosis: str | None = None
    right: bool | None = None
    warned: set[int] = field(default_factory=set)

    @property
    def last(self) -> Graded | None:
        return self.gradings[-1][1] if self.gradings else None

    @property
    def best(self) -> Graded | None:
        """The grading that passed most: all, then the core, then the number of checks."""
        order = list(Level)
        found = [grading for _, grading in self.gradings]
        return max(found, key=lambda g: (order.index(g.level), g.core, g.beyond), default=None)

    def used_s(self, clock_s: float) -> float:
        """Seconds spent in the round by then."""
        if self.began is None:
            return 0.0
        return max(0.0, (clock_s if self.ended is None else self.ended) - self.began)


@dataclass(frozen=True)
class Break:
    """The clock stood from `at_s` on, `away_s` seconds long (None: not known, or still), by a
    pause and its reason, or because the program was killed."""

    at_s: float
    reason: str
    away_s: float | None = None
    killed: bool = False


@dataclass
class State:
    """A sitting so far."""

    rounds: list[RoundState]
    clock_s: float = 0.0
    paused: bool = False
    breaks: list[Break] = field(default_factory=list)
    abandoned: bool = False

    @classmethod
    def of(cls, paper: Paper, events: Iterable[tuple[float, Event]] = ()) -> "State":
        state = cls([RoundState(round) for round in paper.rounds])
        for clock_s, event in events:
            state.apply(event, clock_s)
        return state

    @property
    def current(self) -> int | None:
        """The round to go on with, or None when all have ended."""
        return next((n for n, round in enumerate(self.rounds) if round.ended is None), None)

    @property
    def finished(self) -> bool:
        return self.current is None

    @property
    def over(self) -> bool:
        """Whether nothing more is asked."""
        return self.finished or self.abandoned

    def apply(self, event: Event, clock_s: float) -> None:
        self.clock_s = max(self.clock_s, clock_s)
        match event:
            case Paused(reason=reason):
                self.paused = True
                self.breaks.append(Break(clock_s, reason))
            case Resumed(away_s=away_s):
                self._resumed(clock_s, away_s)
            case Abandoned():
                self.abandoned = True
            case Beat():
                pass
            case _:
                self._in_round(self.rounds[event.round], event, clock_s)

    def _resumed(self, clock_s: float, away_s: float | None) -> None:
        if self.paused:
            self.breaks[-1] = replace(self.breaks[-1], away_s=away_s)
        elif away_s is not None:
            self.breaks.append(Break(clock_s, "", away_s, killed=True))
        self.paused = False

    def _in_round(self, state: RoundState, event: Any, clock_s: float) -> None:
        match event:
            case Began():
                state.began = clock_s if state.began is None else state.began
            case Ended():
                state.ended = clock_s
            case Typed(ask=ask, text=text):
                state.typed.setdefault(ask, []).append(text)
            case Answered(ask=ask):
                state.answers[ask] = event
            case Ticked(ask=ask):
                state.ticks[ask] = event
            case Graded():
                state.gradings.append((clock_s - (state.began or 0.0), event))
            case Hinted(rung=rung):
                state.hints = rung
            case Diagnosed(text=text):
                state.diagnosis = text
            case Judged(right=right):
                state.right = right
            case Warned(minutes=minutes):
                state.warned.add(minutes)
