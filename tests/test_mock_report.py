"""The rubric, and the report in its three forms."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from html_page import HOSTILE, Page

from grader.exam.verdict import Level
from grader.interview import report, rubric
from grader.interview.choice import Grade
from grader.interview.events import (
    Abandoned,
    Answered,
    Began,
    Diagnosed,
    Ended,
    Event,
    Graded,
    Hinted,
    Judged,
    Paused,
    Resumed,
    State,
    Ticked,
)
from grader.interview.paper import Ask, Kind, Paper, Round
from grader.interview.report import Past, Report, Texts
from grader.interview.rubric import Coded, Hire
from grader.views import interview_html, interview_report

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
POINTS = ("One.", "Two.", "Three.", "Four.")


def asked(id: str, **fields: object) -> Ask:
    words = {"id": id, "topic": "lora", "prompt": f"What of $\\alpha$ <{id}>?", "answer": "That."}
    return Ask(**{**words, **fields})  # type: ignore[arg-type]


PAPER = Paper(
    seed=7,
    minutes=45,
    level=Grade.SENIOR,
    focus=None,
    rounds=(
        Round(
            kind=Kind.WARMUP,
            minutes=4,
            asks=(asked("a", points=POINTS), asked("n", points=POINTS, numeric=True, draw=7)),
        ),
        Round(kind=Kind.CODING, minutes=26, par=15, slug="lora_linear"),
        Round(
            kind=Kind.FOLLOWUPS,
            minutes=4,
            asks=(asked("b", points=POINTS), asked("b", followup=0), asked("b", followup=1)),
        ),
        Round(kind=Kind.HUNT, minutes=6, par=6, slug="ia3_linear", bug="scale-added"),
        Round(kind=Kind.DEBRIEF, minutes=5),
    ),
)
PARTS = {"shape": (4, 4), "forward": (3, 4), "merge": (1, 2)}


def graded(round: int, *, passed: bool = False, level: Level = Level.NONE, **f: object) -> Graded:
    words = {"round": round, "by": "save", "passed": passed, "level": level, "parts": PARTS}
    return Graded(**{**words, **f})  # type: ignore[arg-type]


MIDDLING: list[tuple[float, Event]] = [
    (0, Began(round=0)),
    (60, Answered(round=0, ask=0, seconds=60, text="</p><script>alert(1)</script>")),
    (100, Answered(round=0, ask=1, seconds=40, text="7", correct=False, why="Both count.")),
    (300, Ended(round=0)),  # a minute over
    (300, Began(round=1)),
    (600, graded(1, bugs=("scale-missing",), sha256="1" * 64)),
    (700, Hinted(round=1, rung=1)),
    (700, Paused(reason="tea & cake")),
    (700, Resumed()),
    (900, graded(1, parts={**PARTS, "forward": (4, 4)}, level=Level.CORE, sha256="0" * 64)),
    (1200, Ended(round=1)),
    (1200, Began(round=2)),
    (1230, Answered(round=2, ask=0, seconds=30)),
    (1250, Answered(round=2, ask=1, seconds=20, text="so")),
    (1260, Answered(round=2, ask=2, seconds=10, skipped=True)),
    (1300, Ended(round=2)),
    (1300, Began(round=3)),
    (1400, Diagnosed(round=3, text="it is added")),
    (1500, graded(3, passed=True, level=Level.COMPLETE, parts={"shape": (2, 2)})),
    (1510, Ended(round=3)),
    (1510, Began(round=4)),
    (1520, Ticked(round=0, ask=0, share=0.75, said=(0, 1, 3))),
    (1530, Ticked(round=0, ask=1, share=0.5, said=(0, 1))),
    (1540, Ticked(round=2, ask=0, share=0.25, said=(2,))),
    (1550, Ticked(round=2, ask=1, share=0.5)),
    (1560, Ticked(round=2, ask=2, share=0.0)),
    (1570, Judged(round=3, right=True)),
    (1600, Ended(round=4)),
]
TITLES = {("lora_linear", "scale-missing"): "The factor alpha / rank is missing"}
CODE = "class LoRALinear:  # <b> ```\n"
TEXTS = Texts(TITLES, {"0" * 64: CODE}, {"lora_linear": "class Reference: ...\n"})


def made(events: list[tuple[float, Event]] = MIDDLING, earlier: tuple[Past, ...] = ()) -> Report:
    return report.of(4, AT, PAPER, State.of(PAPER, events), TEXTS, earlier)


# The rubric


def test_coding_scores() -> None:
    """Core first; follow-ups count once it is complete; hints and lateness cost."""

    def score(
        core: tuple[int, int],
        beyond: tuple[int, int],
        level: Grade = Grade.SENIOR,
        hints: int = 0,
        used_s: float = 900,
    ) -> float:
        return rubric.coding(core, beyond, level=level, hints=hints, used_s=used_s, par_s=900)

    assert score((10, 10), (10, 10)) == 1
    assert score((10, 10), (0, 10)) == pytest.approx(0.65)
    assert score((10, 10), (0, 10), Grade.JUNIOR) == pytest.approx(0.8)
    assert score((5, 10), (10, 10)) == pytest.approx(0.325)
    assert score((10, 10), (0, 0)) == 1
    assert score((1, 1), (0, 11)) == pytest.approx(0.25)  # a core that is a small part
    assert score((0, 0), (0, 0)) == 0
    assert score((10, 10), (10, 10), hints=2) == pytest.approx(0.9)
    assert score((10, 10), (10, 10), hints=9) == pytest.approx(0.8)
    assert score((10, 10), (10, 10), used_s=1350) == pytest.approx(0.925)
    assert score((10, 10), (10, 10), used_s=9000) == pytest.approx(0.85)


def test_hunt_and_question_scores() -> None:
    """Six tenths for mending, four for knowing why; a wrong number halves an answer."""

    def score(mended: bool, right: bool, hints: int = 0) -> float:
        return rubric.hunting(mended=mended, right=right, hints=hints, used_s=60, par_s=300)

    assert score(True, True) == 1
    assert score(True, False) == pytest.approx(0.6)
    assert score(False, True) == pytest.approx(0.4)
    assert score(False, False, hints=2) == 0
    assert rubric.question(0.8, None) == 0.8
    assert rubric.question(0.8, True) == 0.8
    assert rubric.question(0.8, False) == 0.4


def test_kinds_not_judged_count_neither_way() -> None:
    """The weights are those of the kinds that were judged; rounds of a kind are averaged."""
    scores = [(Kind.CODING, 1.0), (Kind.CODING, 0.5), (Kind.WARMUP, None), (Kind.HUNT, 0.0)]
    assert rubric.whole(scores, Grade.SENIOR) == pytest.approx(0.75 * 0.45 / 0.65)
    assert rubric.whole([(Kind.WARMUP, None)], Grade.SENIOR) is None


@pytest.mark.parametrize(
    ("score", "level", "hire"),
    [
        (0.85, Grade.SENIOR, Hire.STRONG),
        (0.84, Grade.SENIOR, Hire.HIRE),
        (0.69, Grade.SENIOR, Hire.LEAN),
        (0.57, Grade.SENIOR, Hire.LEAN_NO),
        (0.41, Grade.SENIOR, Hire.NO),
        (0.80, Grade.JUNIOR, Hire.STRONG),
        (0.80, Grade.STAFF, Hire.HIRE),
        (0.50, Grade.JUNIOR, Hire.LEAN),
        (0.50, Grade.STAFF, Hire.LEAN_NO),
    ],
)
def test_bars(score: float, level: Grade, hire: Hire) -> None:
    """The same score means less at a higher level."""
    verdict = rubric.verdict(
        [(Kind.CODING, score), (Kind.FOLLOWUPS, score)],
        [Coded("lora_linear", Level.COMPLETE)],
        answered=3,
        level=level,
        over_share=0.0,
    )
    assert verdict is not None
    assert verdict.hire is hire


@pytest.mark.parametrize(
    ("coded", "level", "over", "hire", "reason"),
    [
        ({}, Grade.SENIOR, 0.0, Hire.LEAN, "no code"),
        ({"a": Level.NONE}, Grade.JUNIOR, 0.0, Hire.LEAN, "core of a"),
        ({"a": Level.NONE, "b": Level.COMPLETE}, Grade.JUNIOR, 0.0, Hire.STRONG, ""),
        ({"a": Level.NONE, "b": Level.COMPLETE}, Grade.SENIOR, 0.0, Hire.LEAN, "core of a"),
        ({"a": Level.CORE}, Grade.SENIOR, 0.0, Hire.HIRE, "a not complete"),
        ({"a": Level.CORE, "b": Level.COMPLETE}, Grade.SENIOR, 0.0, Hire.STRONG, ""),
        ({"a": Level.CORE, "b": Level.COMPLETE}, Grade.STAFF, 0.0, Hire.HIRE, "a not complete"),
        ({"a": Level.COMPLETE}, Grade.SENIOR, 0.16, Hire.HIRE, "16 % over"),
    ],
)
def test_limits(
    coded: dict[str, Level], level: Grade, over: float, hire: Hire, reason: str
) -> None:
    """A core that is missing or much over-time bounds the verdict, and says so."""
    verdict = rubric.verdict(
        [(Kind.CODING, 1.0), (Kind.FOLLOWUPS, 1.0)],
        [Coded(*kata) for kata in coded.items()],
        answered=2,
        level=level,
        over_share=over,
    )
    assert verdict is not None
    assert verdict.hire is hire
    assert reason in " ".join(verdict.reasons)


def judged(
    *scores: tuple[Kind, float | None], answered: int = 3, level: Grade = Grade.SENIOR
) -> rubric.Recommendation:
    """A verdict on one kata that is complete, beside these scores."""
    found = rubric.verdict(
        [(Kind.CODING, 1.0), *scores],
        [Coded("a", Level.COMPLETE)],
        answered=answered,
        level=level,
        over_share=0.0,
    )
    assert found is not None
    return found


def test_a_strong_hire_is_more_than_code() -> None:
    """It asks for follow-ups above a share that the rubric states, and for more than one question
    answered; without any, a mock is no more than a lean hire, whatever was coded."""
    rest = [(Kind.HUNT, 1.0), (Kind.WARMUP, 1.0)]
    assert "follow-ups reach 0.60" in " ".join((rubric.__doc__ or "").split())
    for level in Grade:
        at, below = [judged(*rest, (Kind.FOLLOWUPS, share), level=level) for share in (0.67, 0.59)]
        assert (at.hire, below.hire) == (Hire.STRONG, Hire.HIRE)
        if level is not Grade.STAFF:  # whose bar alone asks for more
            why = "follow-ups 59 of 100, 60 are wanted: no better than hire"
            assert below.reasons[-1] == why
    unasked = judged(*rest, (Kind.FOLLOWUPS, None))
    assert unasked.hire is Hire.HIRE
    assert "follow-ups not judged" in unasked.reasons[-1]
    one = judged(*rest, (Kind.FOLLOWUPS, 1.0), answered=1)
    assert one.hire is Hire.HIRE
    assert one.reasons[-1].startswith("one question alone was answered")
    left = judged((Kind.HUNT, 1.0), (Kind.WARMUP, None), (Kind.FOLLOWUPS, None), answered=0)
    assert left.hire is Hire.LEAN
    assert left.score == 1


@pytest.mark.parametrize("level", list(Grade))
def test_nothing_coded_is_no_hire(level: Grade) -> None:
    """All else perfect, and not one check passed: lean no hire at most, as the reason says."""
    perfect = [(Kind.CODING, 0.0), *((kind, 1.0) for kind in Kind if kind is not Kind.CODING)]
    nothing, little = (
        rubric.verdict(
            perfect, [Coded("a", Level.NONE, works)], answered=4, level=level, over_share=0.0
        )
        for works in (False, True)
    )
    assert nothing is not None
    assert little is not None
    order = list(Hire).index
    assert order(nothing.hire) >= order(Hire.LEAN_NO)
    assert order(little.hire) >= order(Hire.LEAN)
    if level is Grade.STAFF:  # where the rest weighs most
        assert (nothing.hire, little.hire) == (Hire.LEAN_NO, Hire.LEAN)
        assert (
            nothing.reasons[-1]
            == "nothing that was coded passes a check: no better than lean no hire"
        )


def test_a_mock_that_was_only_sat_through() -> None:
    """Every question skipped and nothing coded: no hire. The debrief left after all was coded: the
    questions count neither way in the score, and yet it is no more than a lean hire."""
    skipped: list[tuple[float, Event]] = []
    for place, round in enumerate(PAPER.rounds):
        skipped.append((0, Began(round=place)))
        skipped += [
            (0, Answered(round=place, ask=n, seconds=1, skipped=True))
            for n in range(len(round.asks))
        ]
        skipped.append((0, Ended(round=place)))
    assert made(skipped).verdict.hire is Hire.NO  # type: ignore[union-attr]
    complete = graded(1, passed=True, level=Level.COMPLETE, parts={"shape": (4, 4)})
    coded: list[tuple[float, Event]] = [
        (at, e) for at, e in MIDDLING if not isinstance(e, (Graded, Ticked, Hinted))
    ]
    coded += [(1590.0, complete), (1590.0, graded(3, passed=True, level=Level.COMPLETE))]
    verdict = made(coded).verdict
    assert verdict is not None
    assert verdict.hire is Hire.LEAN
    assert "no question was answered and compared" in verdict.reasons[-1]


def test_a_number_not_given_halves_like_a_wrong_one() -> None:
    """And is told as such."""
    without = [
        (at, msgspec.structs.replace(event, text="\nso", correct=None, why=None))
        if isinstance(event, Answered) and (event.round, event.ask) == (0, 1)
        else (at, event)
        for at, event in MIDDLING
    ]
    answer = made(without).rounds[0].answers[1]
    assert (answer.text, answer.correct, answer.no_number) == ("so", False, True)
    assert made(without).rounds[0].score == made().rounds[0].score
    assert "> no number; so\n\nno number was given; 2 of 4 points said (n)" in (
        interview_report.document(made(without))
    )


def test_more_is_never_worse() -> None:
    """A better round never makes the verdict worse."""
    for level in Grade:
        order = list(Hire)
        before = len(order)
        for step in range(21):
            verdict = rubric.verdict(
                [(Kind.CODING, step / 20), (Kind.HUNT, 0.5), (Kind.FOLLOWUPS, step / 20)],
                [Coded("a", Level.COMPLETE)],
                answered=2,
                level=level,
                over_share=0.0,
            )
            assert verdict is not None
            assert order.index(verdict.hire) <= before
            before = order.index(verdict.hire)


# The report


def test_rounds_are_counted_up() -> None:
    """Scores, times, hints, bugs and points of each round come from the events."""
    warmup, coding, followups, hunted, debrief = made().rounds
    assert warmup.score == pytest.approx((0.75 + 0.25) / 2)
    assert warmup.said == (5, 8)
    assert warmup.over_s == 60
    assert coding.level is Level.CORE
    assert coding.hints == 1
    assert coding.bugs == (TITLES["lora_linear", "scale-missing"],)
    assert [t.at_s for t in coding.tried] == [300, 600]
    weight = 0.65
    assert coding.score == pytest.approx(weight + (1 - weight) * 0.5 - 0.05)
    assert followups.score == pytest.approx((0.25 + 0.5 + 0.0) / 3)
    assert hunted.score == 1
    assert hunted.right
    assert debrief.score is None
    assert made().over_s == 60


def test_the_verdict_waits_for_the_end() -> None:
    """An unfinished mock has none; one left at once is no hire, not a crash."""
    assert made(MIDDLING[:10]).verdict is None
    left: list[tuple[float, Event]] = []
    for number in range(5):
        left += [(float(number), Began(round=number)), (float(number), Ended(round=number))]
    verdict = made(left).verdict
    assert verdict is not None
    assert verdict.hire is Hire.NO


def test_three_drills_as_commands() -> None:
    """The largest losses first; always three, and each a command there is."""
    drills = made().drills
    assert len(drills) == 3
    assert drills[0].command == "kata start lora_linear"
    assert "merge 1/2" in drills[0].why
    assert {d.command for d in drills[1:]} <= {
        "kata quiz --ask a",
        "kata quiz --ask n",
        "kata quiz --ask b",
    }
    perfect: list[tuple[float, Event]] = [
        (at, event) for at, event in MIDDLING if not isinstance(event, (Graded, Ticked, Hinted))
    ]
    perfect += [
        (1590, graded(1, passed=True, level=Level.COMPLETE, parts={"shape": (4, 4)})),
        *[(1590.0, Ticked(round=r, ask=a, share=1.0)) for r, a in ((0, 0), (2, 0), (2, 1))],
    ]
    assert len(made(perfect).drills) == 3
    assert made(perfect).verdict.hire in (Hire.STRONG, Hire.HIRE)  # type: ignore[union-attr]
    assert "kata mock --level staff" in {drill.command for drill in made(perfect).drills}
    begun = made([(0, Began(round=0))])
    assert "kata mock --level senior" in {drill.command for drill in begun.drills}


def test_comparison_with_earlier_mocks() -> None:
    """Each kind against the mock before."""
    before = Past(3, AT, 45, "senior", 0.4, "no hire", {Kind.HUNT: 0.5, Kind.CODING: 0.9})
    told = interview_report.change(made(earlier=(before,)))
    assert told.startswith("Against mock 3: whole +")
    assert "bug hunt +50" in told
    assert "coding -13" in told


def test_what_was_not_covered_comes_with_a_good_answer() -> None:
    """Points not said, numbers that were wrong, follow-ups not said; what was covered has none, and
    while the interview can go on nothing has."""
    answers = [answer for round in made().rounds for answer in round.answers]
    assert [a.missed for a in answers] == [
        ("Three.",),
        ("Three.", "Four."),
        ("One.", "Two.", "Four."),
        (),
        (),
    ]
    assert {a.answer for a in answers} == {"That."}
    covered: list[tuple[float, Event]] = [
        (at, msgspec.structs.replace(event, share=1.0, said=(0, 1, 2, 3)))
        if isinstance(event, Ticked)
        else (at, event)
        for at, event in MIDDLING
    ]
    told = [a.id for round in made(covered).rounds for a in round.answers if a.answer]
    assert told == ["n", "b"]  # a wrong number, and a follow-up not answered
    going_on = made(MIDDLING[:-1])
    assert not any(a.answer or a.missed for round in going_on.rounds for a in round.answers)
    assert not any(round.reference for round in going_on.rounds)
    ended = made([*MIDDLING[:-1], (1600, Abandoned())])
    assert [a.missed for a in ended.rounds[0].answers] == [("Three.",), ("Three.", "Four.")]
    assert interview_report.conclusion(ended) == "abandoned in round 5 of 5, no verdict"
    assert ended.verdict is None


def test_mistakes_mended_are_told_from_those_that_stay() -> None:
    """Gone from a file that could be judged at the end; not from one that could not, or that is
    blank again."""
    title = TITLES["lora_linear", "scale-missing"]
    assert made().rounds[1].mended == (title,)
    assert f"    ✓ mended: {title}" in interview_report.page(made(), 100, False)
    last = next(n for n, (at, _) in enumerate(MIDDLING) if at == 900)
    for grading in (
        graded(1, bugs=("scale-missing",)),
        graded(1, parts={}, error="syntax"),
        graded(1, parts={"shape": (0, 4)}, started=False),
    ):
        stays = made([*MIDDLING[:last], (900, grading), *MIDDLING[last + 1 :]])
        assert stays.rounds[1].mended == ()
        assert f"    ✗ {title}" in interview_report.page(stays, 100, False)


def test_the_code_stands_in_every_form() -> None:
    """As it was graded last, the reference beside it; nothing in it ends the block it stands in."""
    report = made()
    assert report.rounds[1].code == CODE
    page = Page(interview_html.page(report))
    assert "details" in page.names
    for text in (CODE, "class Reference: ..."):
        assert text in page.text
    markdown = interview_report.document(report)
    assert f"### Your code at the end\n\n````python\n{CODE}````\n" in markdown
    assert "### The reference\n\n```python\nclass Reference: ...\n```\n" in markdown
    assert f"  {CODE.rstrip()}" in interview_report.page(report, 100, False)


def test_a_kill_is_told_apart_from_pauses() -> None:
    """With how long each lasted, where that is known."""
    place = next(n for n, (at, _) in enumerate(MIDDLING) if at == 900)
    killed = [*MIDDLING[:place], (800.0, Resumed(away_s=3700.0)), *MIDDLING[place:]]
    assert made(killed).used_s == made().used_s
    assert interview_report.spent(made(killed)) == (
        "26:40 of 45:00 used, 1:00 of it over time. Paused: tea & cake at 11:40. Interrupted, as "
        "the program was killed, and not counted: at 13:20 for 1:01:40."
    )


def test_a_score_of_100_stays_in_one_piece() -> None:
    """In the cards of the page for a browser, and in the rows of every terminal."""
    source = interview_html.page(made())
    assert re.search(r"\.score \{[^}]*flex: none; white-space: nowrap", source)
    assert Page(source).text.count("100") >= 3  # card, chart, its axis
    for width in (40, 60, 80, 100):
        rows = interview_report.page(made(), width, False)
        hunted = next(n for n, row in enumerate(rows) if row.startswith("  bug hunt"))
        assert " 100 " in rows[hunted] + rows[hunted + 1]


@pytest.mark.parametrize("width", [40, 60, 100])
def test_the_terminal_page_fits(width: int) -> None:
    """No line is wider than the terminal, and nothing is coloured without colour."""
    before = Past(3, AT, 45, "senior", 0.4, "no hire", {Kind.HUNT: 0.5})
    page = interview_report.page(made(earlier=(before,)), width, False)
    assert max(map(len, page)) <= width
    assert "\x1b" not in "".join(page)
    text = " ".join(" ".join(page).split())
    for fact in ("Verdict: ", "tea & cake", "core complete", "1 hint", "5 of 8 points said"):
        assert fact in text


def test_the_list_fits() -> None:
    """With and without mocks; the seeds go first where there is little room."""
    abandoned = made([*MIDDLING[:10], (1600, Abandoned())])
    for reports in ([], [made()], [made(), made(MIDDLING[:10]), abandoned]):
        for width in (40, 60):
            lines = interview_report.listing(reports, width, False)
            assert max(map(len, lines)) <= width

    assert lines[2].endswith("  unfinished (round 2/5)")
    assert lines[3].endswith("  abandoned (round 2/5)")
    assert "seed" in interview_report.listing([made()], 100, False)[0]


def test_markdown() -> None:
    """The same facts, as a document."""
    text = interview_report.document(made())
    assert text.startswith("# Mock 4 · 2026-03-02")
    assert "| forward | 4/4 |" in text
    assert "Diagnosis: it is added" in text
    lines = text.splitlines()
    bug = next(n for n, line in enumerate(lines) if line.startswith("- ✓ mended: "))
    assert not lines[bug - 1]  # else it would be a row of the table above
    assert "the number was wrong; 2 of 4 points said (n)" in text


def test_the_html_page_stands_alone() -> None:
    """Well-formed, no script, nothing loaded from anywhere, with its facts and charts."""
    before = Past(3, AT, 45, "senior", 0.4, "no hire", {Kind.HUNT: 0.5})
    page = Page(interview_html.page(made(earlier=(before,))))
    page.stands_alone()
    assert "svg" in page.names
    for fact in ("lean hire", "The factor alpha / rank is missing", "it is added", "tea & cake"):
        assert fact in page.text
    assert ("math", {"display": "inline"}) in page.tags  # the α of the questions
    assert "$" not in page.text


def test_the_html_page_makes_what_was_typed_harmless() -> None:
    """Answers, diagnosis and reasons of pauses are text, whatever they hold; so is the rest."""
    typed = {Answered: "text", Diagnosed: "text", Paused: "reason"}
    events = [
        (at, msgspec.structs.replace(event, **{typed[type(event)]: HOSTILE}))
        if type(event) in typed
        else (at, event)
        for at, event in MIDDLING
    ]
    titles = {("lora_linear", "scale-missing"): HOSTILE}
    texts = Texts(titles, {"0" * 64: HOSTILE}, {"lora_linear": HOSTILE})
    before = Past(3, AT, 45, HOSTILE, 0.4, HOSTILE, {})
    found = report.of(4, AT, PAPER, State.of(PAPER, events), texts, (before,))
    rounds = tuple(replace(round, title=HOSTILE) for round in found.rounds)
    page = Page(interview_html.page(replace(found, rounds=rounds)))
    page.stands_alone()
    answers = sum(isinstance(event, Answered) for _, event in MIDDLING)
    charts = 2 * len(rounds) - 1 + 2  # times, scores, two rounds with gradings
    headings = len(rounds) + 3  # rounds, those with answers, the one with code
    others = 7  # pause, bug, code, reference, diagnosis, level and verdict of the mock before
    assert page.text.count(HOSTILE) == answers + charts + headings + others
    labels = [attributes.get("aria-label") or "" for tag, attributes in page.tags if tag == "svg"]
    assert sum(HOSTILE in label for label in labels) == 2


def test_the_html_page_of_an_unfinished_mock(tmp_path: Path) -> None:
    """Every prefix of a sitting makes a page."""
    for end in range(len(MIDDLING)):
        part = made(MIDDLING[:end])
        assert "unfinished" in interview_html.page(part)
        assert interview_report.page(part, 80, False)
        assert interview_report.document(part)
