"""What a grading ends in. Free of torch, so that lists and histories can read it."""

from collections import Counter
from enum import StrEnum

import msgspec


class Part(StrEnum):
    """What a check is about, in the order the screen shows. The first five are the core."""

    SHAPE = "shape"
    INIT = "init"
    FREEZE = "freeze"
    FORWARD = "forward"
    GRADIENT = "gradient"
    MERGE = "merge"
    STATE = "state"
    DTYPE = "dtype"
    DEVICE = "device"
    ERRORS = "errors"
    COST = "cost"
    GPU = "gpu"


# How the lines of a failure's message begin that say where an exception came from.
_LINE, _CALL = "  line ", "  called as: "

CORE = frozenset({Part.SHAPE, Part.INIT, Part.FREEZE, Part.FORWARD, Part.GRADIENT})


class Outcome(StrEnum):
    """`failed`: judged and wrong. `error`: could not be judged (never counts as passed)."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    ERROR = "error"


class Level(StrEnum):
    NONE = "none"
    CORE = "core"
    COMPLETE = "complete"


class Kind(StrEnum):
    """What kept a submission from being judged as a whole."""

    SYNTAX = "syntax"
    IMPORT = "import"
    MISSING = "missing"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASH = "crash"
    OUTPUT = "output"
    BREAKPOINT = "breakpoint"


class Maps(msgspec.Struct, frozen=True, kw_only=True):
    """The last two axes of an array as three small maps of the same cells, each a row a string.

    expected, got: "0" for `low` to "7" for `high`, "x" for what is not finite. off: "0" for what is
    right, "1" to "4" for a difference of up to `largest`, "x" as before. A blank is no entry.
    worst: name and index of each axis where the largest difference is; of the leading ones that
    index is what the maps show. cell: how many entries down and across share a cell, which is that
    of them that is furthest off. An array of one axis goes line by line, as text does.
    """

    expected: tuple[str, ...]
    got: tuple[str, ...]
    off: tuple[str, ...]
    low: float
    high: float
    largest: float
    worst: tuple[tuple[str, int], ...]
    cell: tuple[int, int]

    @property
    def starts(self) -> tuple[list[int], list[int]]:
        """The index at which each row and each column of cells begins; of an array of one axis the
        rows say where in it they begin, and the columns how far they are from there."""
        down, across = self.cell
        wide = len(self.off[0])
        if len(self.worst) == 1:
            down = wide * across
        return [at * down for at in range(len(self.off))], [at * across for at in range(wide)]

    @property
    def peak(self) -> tuple[int, int]:
        """Row and column of the cell with the largest difference."""
        down, across = self.cell
        column = self.worst[-1][1] // across
        if len(self.worst) == 1:
            return divmod(column, len(self.off[0]))
        return self.worst[-2][1] // down, column


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How an array differs from what is right: in words, a sentence each, and as maps, where both
    have one shape. what: which array it is; shape, expected_shape: of what came and what is right.
    """

    what: str
    shape: tuple[int, ...]
    expected_shape: tuple[int, ...]
    words: tuple[str, ...]
    maps: Maps | None = None


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of the contract, judged. `bug` is the catalogue id of the mistake found.

    `started` is False where the submission is the stub still: it answered NotImplementedError.
    `printed` is what it wrote while the check was made (bounded, made harmless for display).
    `difference` is there for the first failures of a learner's own file, where arrays differ.
    """

    name: str
    part: Part
    outcome: Outcome
    message: str = ""
    bug: str | None = None
    started: bool = True
    printed: str = ""
    difference: Difference | None = None

    @property
    def cause(self) -> str:
        """What tells one unnamed failure from another: the exception with the line of the file
        that raised it, or all that is said."""
        lines = self.message.splitlines()
        own = [line for line in lines[1:] if line.startswith(_LINE)]
        return f"{lines[0].partition(':')[0]}{own[-1]}" if own else next(iter(lines), "")

    @property
    def brief(self) -> str:
        """The message in a line: of an exception its text and the line that raised it."""
        lines = self.message.splitlines()
        if self.raised:
            own = [line for line in lines[1:] if line.startswith(_LINE)]
            lines = [f"{lines[0]};" if own else lines[0], *own[-1:]]
        return " ".join(" ".join(lines).split())

    @property
    def raised(self) -> bool:
        """Whether it ended in an exception that no known mistake explains."""
        told = self.message.splitlines()[1:]
        return self.bug is None and any(line.startswith((_LINE, _CALL)) for line in told)


class Trouble(msgspec.Struct, frozen=True):
    kind: Kind
    message: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer to one grading. `only` names the part when just one was run, `check` the
    check when it was one of that part alone; `output` is what the submission printed while it was
    loaded (bounded and harmless too).

    tampered: what it replaced in torch or in Python, which is no pass. marks: where its source
    reaches for its surroundings, for a person to look at; they decide nothing."""

    slug: str
    seed: int
    seconds: float
    checks: tuple[Check, ...]
    error: Trouble | None = None
    only: Part | None = None
    output: str = ""
    check: str | None = None
    tampered: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """All that ran has passed, something ran, and nothing was tampered with."""
        outcomes = [check.outcome for check in self.checks]
        return (
            self.error is None
            and not self.tampered
            and Outcome.PASSED in outcomes
            and all(o in (Outcome.PASSED, Outcome.SKIPPED) for o in outcomes)
        )

    @property
    def level(self) -> Level:
        """How far the kata is; a run of one part or check alone proves no level."""
        if self.only is not None:
            return Level.NONE
        if self.passed:
            return Level.COMPLETE
        if self.tampered:
            return Level.NONE
        core = [check.outcome for check in self.checks if check.part in CORE]
        return Level.CORE if core and set(core) == {Outcome.PASSED} else Level.NONE

    @property
    def started(self) -> bool:
        """False when every check that ran met NotImplementedError."""
        ran = [check for check in self.checks if check.outcome is not Outcome.SKIPPED]
        return self.error is not None or not ran or any(check.started for check in ran)

    @property
    def failures(self) -> list[int]:
        """Indices of the checks to show, what says most first: a named mistake says more than
        its unnamed consequences. One exception that stopped most of what failed is among the first
        two, and leads if nothing in the core is named: a slip of the pen in forward() hides all
        but what never calls it. What never ran is not among them."""
        wrong = [
            (at, check)
            for at, check in enumerate(self.checks)
            if check.started
            and (
                check.outcome is Outcome.FAILED
                or (check.outcome is Outcome.ERROR and self.error is None)
            )
        ]
        named = [at for at, check in wrong if check.bug]
        causes = Counter(check.cause for _, check in wrong if check.raised)
        cause, times = next(iter(causes.most_common(1)), ("", 0))
        if not named or 2 * times <= len(wrong):
            return named or [at for at, _ in wrong]
        first = next(at for at, check in wrong if check.raised and check.cause == cause)
        if self.checks[named[0]].part in CORE:
            return [named[0], first, *named[1:]]
        return [first, *named]

    @property
    def distinct(self) -> list[int]:
        """Indices of the failures to show, the first for each mistake or cause."""
        alike: dict[str, int] = {}
        for at in self.failures:
            alike.setdefault(self.checks[at].bug or self.checks[at].cause, at)
        return list(alike.values())

    @property
    def headline(self) -> int | None:
        """The index of the check that a page leads with, if one failed."""
        return next(iter(self.failures), None)

    def as_json(self) -> bytes:
        """The object that `--json` prints."""
        checks = [
            {
                "name": check.name,
                "part": check.part,
                "outcome": check.outcome,
                "message": check.message,
                "bug": check.bug,
                "printed": check.printed,
                **({"difference": check.difference} if check.difference else {}),
            }
            for check in self.checks
        ]
        return msgspec.json.encode(
            {
                "version": 1,
                "slug": self.slug,
                "passed": self.passed,
                "level": self.level,
                "seed": self.seed,
                "seconds": round(self.seconds, 3),
                "checks": checks,
                "headline": self.headline,
                "error": self.error,
                **({"tampered": self.tampered} if self.tampered else {}),
                **({"marks": self.marks} if self.marks else {}),
            }
        )
