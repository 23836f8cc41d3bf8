"""What a sitting comes to: a pure function of its paper, its events and the texts they name.

The report holds plain values, so that the terminal, Markdown and HTML pages only set them. Good
answers and references are in it once the interview is over, and not while it can go on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from grader.exam.verdict import CORE, Level
from grader.interview import rubric, timing
from grader.interview.choice import Grade
from grader.interview.events import Break, Graded, RoundState, State
from grader.interview.paper import Ask, Kind, Paper
from grader.interview.rubric import Coded, Hire, Recommendation

_DRILLS = 3
_GOOD = 0.75  # a score from which nothing needs to be drilled


@dataclass(frozen=True)
class Texts:
    """What events name and do not hold: titles of the catalogue's bugs, by slug and bug id;
    what was graded, by its sha256; references by slug."""

    titles: Mapping[tuple[str, str], str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """One answer. `share` is None where it was not compared with the rubric; `points` and `said`
    count the rubric's points, 0 of 0 for a follow-up. `correct` is false also where the number
    asked for was not given (`no_number`). `missed` are points not said, `answer` a good answer
    where it was not all covered and the interview is over, both Markdown."""

    id: str
    topic: str
    prompt: str
    text: str
    followup: bool
    skipped: bool
    correct: bool | None
    share: float | None
    said: int
    points: int
    no_number: bool = False
    missed: tuple[str, ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Tried:
    """One grading: seconds since the round began, checks passed and run."""

    at_s: float
    passed: int
    ran: int
    core: bool


@dataclass(frozen=True)
class Part:
    name: str
    core: bool
    passed: int
    ran: int


@dataclass(frozen=True)
class RoundReport:
    """One round; `score` is None where nothing was judged or nothing is scored. Times in
    seconds; `par_s` is 0 where there is none. `bugs` are titles of the mistakes named, `mended`
    those that an earlier grading named and the last one no longer finds. `code` is what was
    graded last, `reference` the solution; empty where nothing was written."""

    kind: Kind
    title: str
    slug: str | None
    planned_s: float
    used_s: float
    over_s: float
    par_s: float
    score: float | None
    reached: bool
    level: Level = Level.NONE
    parts: tuple[Part, ...] = ()
    tried: tuple[Tried, ...] = ()
    passed_s: float | None = None
    hints: int = 0
    bugs: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    code: str = ""
    reference: str = ""
    diagnosis: str | None = None
    right: bool | None = None
    answers: tuple[Said, ...] = ()

    @property
    def said(self) -> tuple[int, int]:
        """Rubric points said, and those there were, over the answers that were judged."""
        judged = [a for a in self.answers if a.share is not None]
        return sum(a.said for a in judged), sum(a.points for a in judged)


@dataclass(frozen=True)
class Drill:
    """A command to practise with, and why."""

    command: str
    why: str


@dataclass(frozen=True)
class Past:
    """An earlier mock, to compare with. `kinds` are scores by kind of round."""

    number: int
    at: datetime
    minutes: int
    level: str
    score: float
    hire: str
    kinds: dict[Kind, float]


@dataclass(frozen=True)
class Report:
    """`left_in` is the place of the round in which the interview stands or was abandoned, from 1;
    None when all have ended."""

    number: int
    at: datetime
    finished: bool
    abandoned: bool
    left_in: int | None
    paper: Paper
    rounds: tuple[RoundReport, ...]
    used_s: float
    over_s: float
    breaks: tuple[Break, ...]
    verdict: Recommendation | None
    drills: tuple[Drill, ...]
    earlier: tuple[Past, ...]

    @property
    def kinds(self) -> dict[Kind, float]:
        """The mean score of each kind of round that was judged."""
        return _kinds(self.rounds)


def of(
    number: int,
    at: datetime,
    paper: Paper,
    state: State,
    texts: Texts,
    earlier: Sequence[Past] = (),
) -> Report:
    """The report."""
    rounds = tuple(_round(paper.level, round, state, texts) for round in state.rounds)
    over = sum(round.over_s for round in rounds)
    verdict = None
    if state.finished:
        verdict = rubric.verdict(
            _scores(rounds),
            [_coded(round) for round in rounds if round.kind is Kind.CODING],
            answered=_answered(rounds),
            level=paper.level,
            over_share=over / (60.0 * paper.minutes),
        )
    return Report(
        number=number,
        at=at,
        finished=state.finished,
        abandoned=state.abandoned,
        left_in=None if state.current is None else state.current + 1,
        paper=paper,
        rounds=rounds,
        used_s=state.clock_s,
        over_s=over,
        breaks=tuple(state.breaks),
        verdict=verdict,
        drills=tuple(_drills(rounds, paper, verdict)),
        earlier=tuple(earlier),
    )


def past(report: Report) -> Past | None:
    """The report as a later one compares with it; None without a verdict."""
    if report.verdict is None:
        return None
    return Past(
        report.number,
        report.at,
        report.paper.minutes,
        report.paper.level,
        report.verdict.score,
        report.verdict.hire,
        report.kinds,
    )


def _scores(rounds: Iterable[RoundReport]) -> list[tuple[Kind, float | None]]:
    return [(round.kind, round.score) for round in rounds if round.kind is not Kind.DEBRIEF]


def _coded(round: RoundReport) -> Coded:
    passed = any(tried.passed for tried in round.tried)
    return Coded(round.slug or "", round.level, passed)


def _answered(rounds: Iterable[RoundReport]) -> int:
    """Questions answered and compared with the rubric; follow-ups are part of theirs."""
    return sum(
        answer.share is not None and not answer.skipped and not answer.followup
        for round in rounds
        for answer in round.answers
    )


def _kinds(rounds: Iterable[RoundReport]) -> dict[Kind, float]:
    found: dict[Kind, list[float]] = {}
    for kind, score in _scores(rounds):
        if score is not None:
            found.setdefault(kind, []).append(score)
    return {kind: sum(scores) / len(scores) for kind, scores in found.items()}


def _round(level: Grade, state: RoundState, sitting: State, texts: Texts) -> RoundReport:
    round, used = state.round, state.used_s(sitting.clock_s)
    best = state.best
    passed_s = next((seconds for seconds, grading in state.gradings if grading.passed), None)
    spent = used if passed_s is None else passed_s
    answers = tuple(
        _said(ask, state, place, sitting.over)
        for place, ask in enumerate(round.asks)
        if state.began is not None
    )
    named = dict.fromkeys(bug for _, grading in state.gradings for bug in grading.bugs)
    mended: set[str] = set()
    code = reference = ""

    def title(bug: str) -> str:
        return texts.titles.get((round.slug or "", bug), bug)

    score: float | None = None
    if round.kind is Kind.CODING:
        score = rubric.coding(
            best.core if best else (0, 0),
            best.beyond if best else (0, 0),
            level=level,
            hints=state.hints,
            used_s=spent,
            par_s=60.0 * round.par,
        )
        mended = _mended(state)
        if state.last is not None and state.last.started:
            code = texts.code.get(state.last.sha256 or "", "")
            reference = texts.references.get(round.slug or "", "") if sitting.over else ""
    elif round.kind is Kind.HUNT:
        named = {}
        score = rubric.hunting(
            mended=passed_s is not None,
            right=bool(state.right),
            hints=state.hints,
            used_s=spent,
            par_s=60.0 * round.par,
        )
    elif round.asks:
        score = _answers_score(answers)
    return RoundReport(
        kind=round.kind,
        title=round.title,
        slug=round.slug,
        planned_s=60.0 * round.minutes,
        used_s=used,
        over_s=timing.over_s(round.minutes, used),
        par_s=60.0 * round.par,
        score=score,
        reached=state.began is not None,
        level=best.level if best else Level.NONE,
        parts=_parts(best),
        tried=tuple(_tried(seconds, grading) for seconds, grading in state.gradings),
        passed_s=passed_s,
        hints=state.hints,
        bugs=tuple(title(bug) for bug in named),
        mended=tuple(title(bug) for bug in named if bug in mended),
        code=code,
        reference=reference,
        diagnosis=state.diagnosis,
        right=state.right,
        answers=answers,
    )


def _mended(state: RoundState) -> set[str]:
    """Mistakes named before that are gone at the end, in a file that could be judged."""
    last = state.last
    if last is None or last.error is not None or not last.core[0] + last.beyond[0]:
        return set()
    named = {bug for _, grading in state.gradings for bug in grading.bugs}
    return named - {*last.bugs}


def _answers_score(answers: Sequence[Said]) -> float | None:
    """The mean of the answers judged; None if none is."""
    judged = [rubric.question(a.share, a.correct) for a in answers if a.share is not None]
    return sum(judged) / len(judged) if judged else None


def _said(ask: Ask, state: RoundState, place: int, over: bool) -> Said:
    answer, tick = state.answers.get(place), state.ticks.get(place)
    skipped = answer is None or answer.skipped
    share = 0.0 if skipped and state.ended is not None else tick.share if tick else None
    no_number = answer is not None and not skipped and ask.without_number(answer.text)
    correct = False if no_number else answer.correct if answer else None
    said, typed = tick.said if tick else (), state.typed.get(place, ())
    covered = share is not None and share >= 1.0 and correct is not False
    reveals = over and not covered and (answer is not None or state.ended is not None)
    return Said(
        id=ask.id,
        topic=ask.topic,
        prompt=ask.prompt,
        text=(answer.text if answer and answer.text else "\n".join(typed)).strip("\n"),
        followup=ask.followup is not None,
        skipped=skipped,
        correct=correct,
        share=share,
        said=len(said),
        points=len(ask.points),
        no_number=no_number,
        missed=tuple(p for n, p in enumerate(ask.points) if reveals and n not in said),
        answer=ask.answer if reveals else "",
    )


def _parts(grading: Graded | None) -> tuple[Part, ...]:
    if grading is None:
        return ()
    return tuple(
        Part(name, name in CORE, passed, ran) for name, (passed, ran) in grading.parts.items()
    )


def _tried(seconds: float, grading: Graded) -> Tried:
    core, beyond = grading.core, grading.beyond
    return Tried(seconds, core[0] + beyond[0], core[1] + beyond[1], grading.level is not Level.NONE)


# What to drill next


def _drills(
    rounds: Sequence[RoundReport], paper: Paper, verdict: Recommendation | None
) -> list[Drill]:
    """The three commands that mend most, the largest losses first."""
    found: list[tuple[float, Drill]] = []
    for round in rounds:
        if not round.reached:
            continue
        if round.kind is Kind.CODING:
            found += _on_coding(round)
        elif round.kind is Kind.HUNT:
            found += _on_hunt(round)
        else:
            found += _on_answers(round)
    chosen: dict[str, Drill] = {}
    for _, drill in sorted(found, key=lambda pair: -pair[0]):
        chosen.setdefault(drill.command, drill)
    return [*chosen.values(), *_otherwise(paper.level, verdict)][:_DRILLS]


def _on_coding(round: RoundReport) -> list[tuple[float, Drill]]:
    loss = 1.0 - (round.score or 0.0)
    failed = [p for p in round.parts if p.passed < p.ran]
    if round.level is Level.COMPLETE:
        if round.score is not None and round.score >= 0.9:
            return []
        return [(loss, Drill(f"kata start {round.slug}", "complete, but with hints or past par"))]
    if not round.tried:
        why = "not graded"
    elif round.level is Level.CORE:
        why = f"core complete; open: {_named(failed)}"
    else:
        why = f"core open: {_named([p for p in failed if p.core])}" if failed else "not judged"
    return [(1.0 + loss, Drill(f"kata start {round.slug}", why))]  # before all else


def _named(parts: Sequence[Part]) -> str:
    return ", ".join(f"{part.name} {part.passed}/{part.ran}" for part in parts[:4])


def _on_hunt(round: RoundReport) -> list[tuple[float, Drill]]:
    if (round.score or 0.0) >= _GOOD:
        return []
    why = "the bug was not mended" if round.passed_s is None else "mended, but not for the reason"
    if round.passed_s is not None and round.right:
        why = "found with hints or past par"
    return [(1.0 - (round.score or 0.0), Drill(f"kata bug {round.slug}", why))]


def _on_answers(round: RoundReport) -> list[tuple[float, Drill]]:
    found = []
    for answer in round.answers:
        if answer.share is None:
            continue
        score = rubric.question(answer.share, answer.correct)
        if score >= _GOOD:
            continue
        if answer.skipped:
            why = f"{answer.topic}: not answered"
        elif answer.no_number:
            why = f"{answer.topic}: no number given"
        elif answer.correct is False:
            why = f"{answer.topic}: the number was wrong"
        elif answer.followup:
            why = f"{answer.topic}: the follow-up was not fully answered"
        else:
            why = f"{answer.topic}: {answer.said} of {answer.points} points said"
        found.append((1.0 - score, Drill(f"kata quiz --ask {answer.id}", why)))
    return found


def _otherwise(level: Grade, verdict: Recommendation | None) -> list[Drill]:
    """What to do when little went wrong, or little was tried."""
    levels = list(Grade)
    if verdict is not None and verdict.hire in (Hire.HIRE, Hire.STRONG):
        level = levels[min(levels.index(level) + 1, len(levels) - 1)]
    return [
        Drill(f"kata mock --level {level}", "the next mock, with another paper"),
        Drill("kata bug --random", "reading code under time"),
        Drill("kata quiz", "what is due"),
    ]
