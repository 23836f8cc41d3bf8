"""The rubric: how rounds are scored, and what verdict the scores bear. Pure.

Scores run from 0 to 1.

coding
    The share of core checks passed in the best grading, weighted with the level's `core` (junior
    0.8, senior 0.65, staff 0.5; but never with more than three times the core's share of all
    checks), plus, once the core is complete, the share of the follow-up checks with the rest.
    A hint costs 0.05 (at most 0.2); time beyond par costs up to 0.15, reached at twice the par.
bug hunt
    0.6 for a file that passes, 0.4 for a diagnosis that named the bug; hints cost 0.1 each, time
    as in coding.
questions (warm-up, follow-ups)
    The mean over the questions of the share of rubric points said; a follow-up counts 1, 0.5 or 0
    as said, partly, not said. A number that is wrong or was not given halves its question; a
    question not answered is 0. Answers never compared with the rubric (the debrief was left) are
    not judged and count neither way; a diagnosis never judged is none.
whole
    The mean of each kind of round, weighted by level over the kinds that were judged:

             coding  bug hunt  warm-up  follow-ups
    junior    0.55     0.15      0.20      0.10
    senior    0.45     0.20      0.15      0.20
    staff     0.35     0.20      0.15      0.30

verdict
             strong hire  hire  lean hire  lean no hire   (below: no hire)
    junior       0.80     0.65     0.50        0.35
    senior       0.85     0.70     0.58        0.42
    staff        0.90     0.78     0.65        0.50

    whatever the score, no better than
      lean no hire   if nothing was coded: no check passed in any coding round
      lean hire      without a core (junior: one kata with its core complete, senior and staff every
                     kata), where no code was asked for, or without one question answered and
                     compared with the rubric
      hire           unless one kata (staff: every kata) is complete, more than one question was
                     answered and compared, the follow-ups reach 0.60, and over-time is at most
                     15 % of the minutes planned
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from grader.exam.verdict import Level
from grader.interview.choice import Grade
from grader.interview.paper import Kind

_CORE = {Grade.JUNIOR: 0.8, Grade.SENIOR: 0.65, Grade.STAFF: 0.5}
_WEIGHTS = {
    Grade.JUNIOR: {Kind.CODING: 0.55, Kind.HUNT: 0.15, Kind.WARMUP: 0.20, Kind.FOLLOWUPS: 0.10},
    Grade.SENIOR: {Kind.CODING: 0.45, Kind.HUNT: 0.20, Kind.WARMUP: 0.15, Kind.FOLLOWUPS: 0.20},
    Grade.STAFF: {Kind.CODING: 0.35, Kind.HUNT: 0.20, Kind.WARMUP: 0.15, Kind.FOLLOWUPS: 0.30},
}
_BARS = {
    Grade.JUNIOR: (0.80, 0.65, 0.50, 0.35),
    Grade.SENIOR: (0.85, 0.70, 0.58, 0.42),
    Grade.STAFF: (0.90, 0.78, 0.65, 0.50),
}
HINT, _HINTS_AT_MOST, HUNT_HINT = 0.05, 0.2, 0.1
_SLOW = 0.15
_OVER = 0.15
_FOLLOWED = 0.6  # of the follow-ups, for a strong hire


class Hire(StrEnum):
    """The verdicts, best first."""

    STRONG = "strong hire"
    HIRE = "hire"
    LEAN = "lean hire"
    LEAN_NO = "lean no hire"
    NO = "no hire"


@dataclass(frozen=True)
class Coded:
    """What a coding round came to: the level reached, and whether any check passed."""

    slug: str
    level: Level
    works: bool = True


@dataclass(frozen=True)
class Recommendation:
    """`score` is 0 to 1; `reasons` say what the verdict rests on, limits that bit included."""

    hire: Hire
    score: float
    reasons: tuple[str, ...]


def coding(
    core: tuple[int, int],
    beyond: tuple[int, int],
    *,
    level: Grade,
    hints: int,
    used_s: float,
    par_s: float,
) -> float:
    """The score of a coding round. `core` and `beyond` are checks passed and run."""
    weight = 1.0 if not beyond[1] else min(_CORE[level], 3 * core[1] / (core[1] + beyond[1]))
    score = weight * _share(core)
    if core[0] == core[1]:
        score += (1 - weight) * _share(beyond)
    return _less(score, min(_HINTS_AT_MOST, HINT * hints) + _late(used_s, par_s))


def hunting(*, mended: bool, right: bool, hints: int, used_s: float, par_s: float) -> float:
    """The score of a bug hunt."""
    score = 0.6 * mended + 0.4 * right
    return _less(score, HUNT_HINT * hints + _late(used_s, par_s))


def question(share: float, correct: bool | None) -> float:
    """The score of one answer: the share of points said, halved by a wrong number."""
    return 0.5 * share if correct is False else share


def _share(counts: tuple[int, int]) -> float:
    passed, ran = counts
    return passed / ran if ran else 0.0


def _late(used_s: float, par_s: float) -> float:
    return _SLOW * min(1.0, max(0.0, used_s / par_s - 1.0)) if par_s > 0 else 0.0


def _less(score: float, cost: float) -> float:
    return max(0.0, score - cost)


def whole(scores: Sequence[tuple[Kind, float | None]], level: Grade) -> float | None:
    """The score of a sitting from those of its rounds (None: not judged); None if none was."""
    total = weights = 0.0
    for kind, weight in _WEIGHTS[level].items():
        judged = [score for k, score in scores if k is kind and score is not None]
        if judged:
            total += weight * sum(judged) / len(judged)
            weights += weight
    return total / weights if weights else None


def verdict(
    scores: Sequence[tuple[Kind, float | None]],
    coded: Sequence[Coded],
    *,
    answered: int,
    level: Grade,
    over_share: float,
) -> Recommendation | None:
    """The verdict on a finished sitting; None if nothing in it was judged.

    answered: questions answered and compared with the rubric; over_share: over-time over minutes
    planned.
    """
    score = whole(scores, level)
    if score is None:
        return None
    order, best = list(Hire).index, _by_bars(score, level)
    reasons = [_sum(scores, level)]
    limits = [*_on_code(coded, level), *_on_answers(scores, answered)]
    if over_share > _OVER:
        limits.append((Hire.HIRE, f"{round(100 * over_share)} % over time"))
    lowest = max((limit for limit, _ in limits), key=order, default=best)
    if order(lowest) > order(best):
        best = lowest
        reasons += [f"{why}: no better than {best}" for limit, why in limits if limit is best]
    return Recommendation(best, score, tuple(reasons))


def _sum(scores: Sequence[tuple[Kind, float | None]], level: Grade) -> str:
    """How the score came about, and what it would have had to be."""
    terms = []
    for kind, weight in _WEIGHTS[level].items():
        judged = [score for k, score in scores if k is kind and score is not None]
        if judged:
            terms.append(f"{kind} {round(100 * sum(judged) / len(judged))} (weight {weight:.2f})")
    bar = round(100 * _BARS[level][1])
    return f"{', '.join(terms)}; a hire needs {bar} for {level}"


def _by_bars(score: float, level: Grade) -> Hire:
    for hire, bar in zip(Hire, _BARS[level]):
        if score >= bar - 1e-9:
            return hire
    return Hire.NO


def _on_code(coded: Sequence[Coded], level: Grade) -> list[tuple[Hire, str]]:
    """Verdicts that cannot be exceeded, for what was coded, with the reason."""
    if not coded:
        return [(Hire.LEAN, "no code was asked for")]
    if not any(kata.works for kata in coded):
        return [(Hire.LEAN_NO, "nothing that was coded passes a check")]
    found = []
    missing = [kata.slug for kata in coded if kata.level is Level.NONE]
    partly = [kata.slug for kata in coded if kata.level is not Level.COMPLETE]
    if missing and (level is not Grade.JUNIOR or len(missing) == len(coded)):
        found.append((Hire.LEAN, f"core of {', '.join(missing)} not complete"))
    if partly and (level is Grade.STAFF or len(partly) == len(coded)):
        found.append((Hire.HIRE, f"{', '.join(partly)} not complete"))
    return found


def _on_answers(
    scores: Sequence[tuple[Kind, float | None]], answered: int
) -> list[tuple[Hire, str]]:
    """The same for what was answered."""
    if not answered:
        return [(Hire.LEAN, "no question was answered and compared with its rubric")]
    found = []
    if answered == 1:
        found.append((Hire.HIRE, "one question alone was answered"))
    followed = [s for kind, s in scores if kind is Kind.FOLLOWUPS and s is not None]
    mean = sum(followed) / len(followed) if followed else 0.0
    if mean < _FOLLOWED - 1e-9:
        share = f"{round(100 * mean)} of 100" if followed else "not judged"
        found.append((Hire.HIRE, f"follow-ups {share}, {round(100 * _FOLLOWED)} are wanted"))
    return found
