"""What the templates are filled with, from the same engines and the same store as the commands."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from grader import catalog
from grader.catalog import Bug
from grader.exam.verdict import CORE, Check, Outcome, Part, Verdict
from grader.interview import held
from grader.practice import clock, contract, current, hints, hunt, schedule, stubs, work
from grader.practice import plan as plans
from grader.practice.grading import Graded
from grader.practice.workspace import Workspace, shown
from grader.recall import after, agenda, bank, record
from grader.store import Store
from grader.store.attempts import Attempt, Snapshot
from grader.views import html, listing, mathml, result, stats_html
from grader.views import today as days
from grader.views.difference import where
from grader.views.difference_html import maps
from grader.views.plain import clock as duration
from grader.views.plain import counted, when
from grader.web import bundle, desk
from grader.web.commands import linked

_HERE = Path(__file__).parent
_WEEK = 7
_QUESTIONS = 5
_SHOWN = 12
_SHOWN_AGAIN = timedelta(minutes=30)  # a solution, to who goes back or loads the page anew
_AREAS = {  # of the bar above each page: its address, and the templates of its pages
    "Today": ("/", ("today",)),
    "Katas": ("/katas", ("katas", "kata", "history", "version", "solution")),
    "Quiz": ("/quiz", ("quiz", "quiz_begin")),
    "Hunts": ("/bugs", ("bugs", "bug", "bug_end")),
    "Mock": (
        "/mock",
        ("mock", "mock_paper", "mock_question", "mock_work", "mock_debrief", "interview"),
    ),
    "Plan": ("/plan", ("plan",)),
    "Stats": ("/stats", ("stats",)),
}
_TYPED = ("text", "number", "diagnosis", "reason")  # fields that a learner writes in


def render(template: str, **values: object) -> str:
    """The template filled with these values, with `editor`, the address of its script, with
    `linked`, for words that may name commands, and with the area that it belongs to."""
    name = template.removesuffix(".html")
    area = next((area for area, (_, names) in _AREAS.items() if name in names), "")
    found = html.environment(_HERE / "templates").get_template(template)
    return found.render(values, editor=bundle.editor(), linked=linked, areas=_AREAS, area=area)


def style() -> bytes:
    """The one style sheet: that of the pages written to files, and what this front adds."""
    own = (_HERE / "static" / "web.css").read_text(encoding="utf-8")
    return (html.style() + own + bundle.style()).encode()


# Today


def today() -> str:
    """What is due and new, the week, and what is weak."""
    now = clock.now().astimezone()
    with Store.open(create=False) as store:
        plan = plans.current(store.settings, now)
        found = agenda.today(store.memory, plan, now)
        week = _week(store, plan, now)
        stats = record.statistics_of(store, now)
        going = current.read(store)
    mocks, hunts = held.unfinished(), hunt.opened()
    commands = days.commands(found)
    return render(
        "today.html",
        agenda=found,
        lists=(("Due" if plan is None else "Again", found.due), ("New", found.new)),
        shown=_SHOWN,
        days=days,
        week=week,
        stats=stats,
        counted=counted,
        commands=commands,
        current=None if going is None else catalog.card(going.slug),
        mocks=[mock.number for mock in mocks],
        hunts=sorted(hunts),
    )


@dataclass(frozen=True)
class _Day:
    """How many things come back on a day, and what has its date on it."""

    day: date
    due: int
    stops: tuple[str, ...]


def _week(store: Store, plan: plans.Plan | None, now: datetime) -> list[_Day]:
    known, first = agenda.items(), plans.study_day(now)
    due = Counter(
        max(plans.study_day(card.due.astimezone(now.tzinfo)), first)
        for key, card in store.memory.cards().items()
        if key in known
    )
    stops = [] if plan is None else agenda.ahead(store.memory, plan, now)
    found = []
    for ahead in range(_WEEK):
        day = first + timedelta(days=ahead)
        dated = [days.STOPS[stop.kind] for stop in stops if stop.day == day]
        if plan is not None and plan.interview == day:
            dated.append("the interview")
        found.append(_Day(day, due[day], tuple(dated)))
    return found


# Katas


def katas(track: str | None) -> str:
    """The katas by track, or those of one."""
    with Store.open(create=False) as store:
        standings, cards = store.attempts.standings(), store.memory.cards()
    rows = listing.rows_of(standings, cards)
    return render(
        "katas.html",
        tracks=catalog.tracks(),
        track=track,
        rows=rows,
        passed=sum(row.standing.level == "complete" for row in rows),
        end=schedule.day_end(clock.now().astimezone()),
        duration=duration,
    )


def kata(slug: str, space: Workspace, page: str) -> str:
    """A kata: the task, the editor on its file, hints, and how the file as it is was judged."""
    path, now = space.path(slug), clock.now()
    opened = desk.opened(path)
    with Store.open(create=False) as store:
        work.on_kata(store, slug, now)
        ladder = hints.ladder(store, slug)
        begun = store.attempts.begun(slug)
        worked_s = None if begun is None else store.work.seconds(f"kata:{slug}", begun)
    last = last_graded(slug, opened.base)
    card, task = catalog.card(slug), contract.task(slug)
    cards = catalog.cards()
    at = cards.index(card)
    return render(
        "kata.html",
        at=f"/katas/{slug}",
        page=page,
        card=card,
        file=shown(path),
        opened=opened,
        text=opened.text if opened.base else stubs.stub(slug),
        history=f"/katas/{slug}/history",
        hidden={},
        above="",
        task=task,
        contract=[_indented(line) for line in task.contract.splitlines()],
        intro=_paragraphs(task.intro),
        code=html.code,
        asked=catalog.entry(slug).asked,
        rules=[
            (title, {p: rules for p, rules in task.rules.items() if (p in CORE) is core})
            for title, core in (("Checked: the core", True), ("Checked: the follow-ups", False))
        ],
        questions=questions(slug),
        markdown=mathml.markdown,
        ladder=ladder,
        begun=begun,
        worked=None if worked_s is None else duration(worked_s),
        verdict=None if last is None else verdict(last),
        before=cards[at - 1] if at else None,
        after=cards[at + 1] if at + 1 < len(cards) else None,
    )


def _indented(line: str) -> tuple[int, str]:
    """A line and how deep it stands, in steps of four columns: it is folded in its place."""
    text = line.lstrip()
    deep = min((len(line) - len(text)) // 4, 4)
    return deep, line[4 * deep :]


def _paragraphs(text: str) -> list[tuple[str, str]]:
    """Text as it flows, or "pre" where it is set in columns."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return [
        ("pre", "\n".join(lines)) if any("  " in line for line in lines) else ("", " ".join(lines))
        for lines in blocks
    ]


def questions(slug: str) -> list[str]:
    """Some of what is asked about a kata, in Markdown; those whose numbers are drawn are not."""
    prompts = (q.prompt for q in bank.load() if slug in q.katas and "[[" not in q.prompt)
    return sorted(prompts, key=lambda prompt: "$" not in prompt)[:_QUESTIONS]


def last_graded(slug: str, base: str) -> Graded | None:
    """The newest attempt, where it was with the bytes of this digest."""
    with Store.open(create=False) as store:
        attempts, snapshots = store.attempts.of(slug), store.attempts.snapshots(slug)
        found = store.attempts.last_verdict(slug)
    if not attempts or found is None:
        return None
    tried = [s for s in snapshots if s.number == attempts[-1].snapshot]
    if not tried or tried[0].sha256 != base:
        return None
    return Graded(found)


# Verdicts


@dataclass(frozen=True)
class _Failure:
    check: Check
    bug: Bug | None


def verdict(graded: Graded, onward: bool = True) -> str:
    """How a file was judged, as a piece of a page: what is wrong first, and where to go on to."""
    found, recorded = graded.verdict, graded.recorded
    known, follows = catalog.entry(found.slug), after.after(graded)
    around = result.Around(
        card=catalog.card(found.slug),
        bugs={bug.id: bug for bug in known.bugs},
        file="",
        attempt=recorded.number if recorded else None,
        elapsed_s=recorded.elapsed_s if recorded else None,
        best_s=follows.best_s,
        due_again=when(recorded.due, clock.now()) if recorded and recorded.due else None,
    )
    told = result.failures(found)
    also = [
        check
        for check in found.checks
        if check.outcome is Outcome.FAILED and check.started and check not in told
    ]
    return render(
        "_verdict.html",
        verdict=found,
        conclusion=result.conclusion(found),
        code=html.code,
        maps=maps,
        where=where,
        facts=[fact for fact in result.facts(found, around) if not fact.startswith("--seed")],
        parts=parts(found),
        failures=[_Failure(check, known.known(check.bug)) for check in told],
        also=result.names(also) if also else "",
        printed=_printed(found),
        next_slug=follows.next_slug,
        questions=follows.questions,
        trouble=graded.trouble,
        onward=onward,
    )


def parts(found: Verdict) -> list[tuple[str, list[result.Score]]]:
    """How far each part is, the core first."""
    groups = (
        ("Core", [p for p in Part if p in CORE]),
        ("Follow-ups", [p for p in Part if p not in CORE]),
    )
    if found.error is not None and all(c.outcome is Outcome.ERROR for c in found.checks):
        return []
    return [(name, scores) for name, parts in groups if (scores := result.scores(found, parts))]


def _printed(found: Verdict) -> list[tuple[str, str]]:
    leading = found.checks[found.headline].printed if found.headline is not None else ""
    texts = (("in that check", leading), ("while it was loaded", found.output))
    return [(where, text.rstrip()) for where, text in texts if text.strip()]


# History and solution


def history(slug: str) -> str:
    """Kept versions, newest first, each with the attempts made with it."""
    with Store.open(create=False) as store:
        snapshots, attempts = store.attempts.snapshots(slug), store.attempts.of(slug)
    tried: dict[int | None, list[Attempt]] = {}
    for attempt in attempts:
        tried.setdefault(attempt.snapshot, []).append(attempt)
    return render(
        "history.html",
        card=catalog.card(slug),
        snapshots=snapshots[::-1],
        tried=tried,
        attempts=attempts,
        counted=counted,
        alone=result.alone,
    )


def version(slug: str, number: int, space: Workspace) -> str | None:
    """A kept version, and what leads from it to the file as it is; None if there is no such."""
    with Store.open(create=False) as store:
        snapshots = store.attempts.snapshots(slug)
    found = next((s for s in snapshots if s.number == number), None)
    if found is None:
        return None
    before = _before(snapshots, number)
    text, now = desk.decoded(found.source), desk.opened(space.path(slug))
    compared = [
        (
            "From it to your file as it is",
            desk.difference(text, now.text, (f"version {number}", "your file")),
        )
    ]
    if before is not None:
        older = desk.decoded(before.source)
        names = (f"version {before.number}", f"version {number}")
        compared.append(
            (f"From version {before.number} to it", desk.difference(older, text, names))
        )
    return render(
        "version.html", card=catalog.card(slug), snapshot=found, text=text, compared=compared
    )


def _before(snapshots: Iterable[Snapshot], number: int) -> Snapshot | None:
    return max((s for s in snapshots if s.number < number), key=lambda s: s.number, default=None)


def solution(slug: str, space: Workspace) -> str:
    """The reference, beside what leads to it from the learner's file; the page that asks whether
    it is to be shown unless that was answered just now."""
    with Store.open(create=False) as store:
        seen = store.attempts.solution_seen(slug)
    asked = seen is None or not timedelta(0) <= clock.now() - seen < _SHOWN_AGAIN
    text, lines = "", []
    if not asked:
        text = stubs.solution(slug)
        mine = desk.opened(space.path(slug)).text
        lines = desk.difference(mine, text, ("your file", "the reference"))
    return render("solution.html", card=catalog.card(slug), asked=asked, text=text, lines=lines)


# All else


def statistics() -> str:
    """The charts of `kata stats`."""
    cards = {card.slug: card for card in catalog.cards()}
    with Store.open(create=False) as store:
        found = record.statistics_of(store, clock.now().astimezone())
    return render("stats.html", layout="base.html", **stats_html.values(found, cards))


def conflict(at: str, history: str, mine: str, there: desk.Opened) -> str:
    """Without script: the file of the page `at` was changed meanwhile, and what is to be done.
    `history` is where its versions are shown, "" where they are kept beside it."""
    return render(
        "conflict.html",
        at=at,
        history=history,
        kept=desk.KEPT,
        mine=mine,
        there=there,
        lines=theirs(mine, there),
    )


def theirs(mine: str, there: desk.Opened) -> list[tuple[str, str]]:
    """What leads from the page's text to the file's."""
    return desk.difference(mine, there.text, ("on this page", "on the disk"))


def trouble(title: str, text: str, sent: Mapping[str, str], at: str) -> str:
    """What went wrong, in a line or two; of a form that was `sent` what was typed is kept there.
    `at` is the page to go back to, "" if none is known."""
    return render("trouble.html", heading=title, text=text, typed=typed(sent), at=at)


def typed(sent: Mapping[str, str]) -> list[str]:
    """What a learner has written in a form."""
    return [sent[name] for name in _TYPED if sent.get(name)]
