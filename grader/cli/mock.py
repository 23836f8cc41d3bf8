"""mock: timed mock interviews and their reports."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from grader import catalog
from grader.cli import common, terminal
from grader.cli.terminal import prompts
from grader.errors import UsageFault
from grader.practice import clock
from grader.views import json

if TYPE_CHECKING:
    from grader.interview.paper import Paper
    from grader.interview.report import Report
    from grader.store.interviews import Interview

_LEVELS = ("junior", "senior", "staff")


@click.command("mock")
@click.option("--minutes", type=click.IntRange(15, 120), default=45, show_default=True)
@click.option("--seed", type=click.IntRange(0), help="The same seed gives the same paper.")
@click.option("--focus", type=click.Choice(catalog.tracks()), help="Katas of this track first.")
@click.option("--level", type=click.Choice(_LEVELS), help="senior unless you say otherwise.")
@click.option(
    "--deck",
    type=click.Choice(common.DECKS),
    help="Questions of this deck; core, or all where --level senior or staff is given.",
)
@click.option("--plan", is_flag=True, help="Show the paper's outline and do not begin.")
@click.option("--resume", is_flag=True, help="Go on with the last unfinished mock.")
@click.option("--abandon", metavar="N", type=int, help="End unfinished mock N; all of it is kept.")
@click.option("--list", "list_", is_flag=True, help="All mocks and their verdicts.")
@click.option(
    "--report", metavar="N", type=int, help="The report of mock N; writes its files anew."
)
@common.as_json
def mock_command(
    minutes: int,
    seed: int | None,
    focus: str | None,
    level: str | None,
    deck: str | None,
    plan: bool,
    resume: bool,
    abandon: int | None,
    list_: bool,
    report: int | None,
    json_: bool,
) -> int:
    """A mock interview against the clock: recall, coding, follow-ups, a bug hunt, a debrief.

    You code in your own editor, in a folder that the mock names; every save is graded. Ctrl-C
    pauses; `kata mock` offers to go on, also after a crash.
    """
    if [plan, resume, list_, abandon is not None, report is not None].count(True) > 1:
        raise UsageFault("--plan, --resume, --abandon, --list and --report exclude each other.")
    if json_ and not (plan or list_ or report is not None):
        raise UsageFault("--json goes with --plan, --list or --report.")
    if list_:
        return _list(json_)
    if report is not None:
        return _report(_numbered(report), json_)
    if abandon is not None:
        _abandon(_numbered(abandon))
        return 0
    if resume:
        return _sit(_unfinished())
    try:
        offered = None if plan else _offered()
    except prompts.Left:
        return 0
    if offered is not None:
        return _sit(offered)
    from grader.interview import anew

    chosen = anew.seed() if seed is None else seed
    paper = anew.paper(minutes, chosen, level=level, focus=focus, deck=deck)
    if plan:
        return _plan(paper, json_)
    return _begin(paper)


def _plan(paper: "Paper", json_: bool) -> int:
    from grader.views import interview

    if json_:
        terminal.say_json(json.outline(paper))
    else:
        terminal.say(*interview.outline(paper, terminal.width(), terminal.colour()))
    return 0


def _begin(paper: "Paper") -> int:
    from grader.interview import sitting
    from grader.views import interview

    terminal.say(*interview.outline(paper, terminal.width(), terminal.colour()), "")
    begun = sitting.begin(paper, clock.now())
    terminal.say(f"Mock {begun.number}. Your files are in {begun.folder}")
    return _sit(begun)


def _sit(interview: "Interview") -> int:
    """Hold the sitting to its end, then show its report."""
    from grader.cli.terminal.conversation import Conversation
    from grader.cli.terminal.desk import Desk
    from grader.interview.sitting import Sitting, alone
    from grader.practice.grading import Bench
    from grader.views.plain import wrapped

    with alone(interview), Bench() as bench:
        try:
            Conversation(Sitting(interview), Desk(), bench).run()
        except (KeyboardInterrupt, prompts.Left) as end:
            text = f"Mock {interview.number} is paused, nothing is lost."
            text += " `kata mock --resume` goes on."
            terminal.note("\n" + "\n".join(wrapped(text, terminal.width())))
            if isinstance(end, KeyboardInterrupt):
                raise
            return 0
    return _report(_numbered(interview.number), json_=False)


def _numbered(number: int) -> "Interview":
    from grader.interview import held

    return held.numbered(number)


def _unfinished() -> "Interview":
    """The last one that can be gone on with."""
    from grader.interview import held

    found = held.unfinished()
    if not found:
        raise UsageFault("No mock is unfinished. `kata mock` begins one.")
    return found[-1]


def _offered() -> "Interview | None":
    """The unfinished mock that is to be gone on with; None for a new one. Without a terminal a
    note tells of it. Raises prompts.Left."""
    from grader.interview import held, paper, sitting
    from grader.views import interview

    found = held.unfinished()
    if found and not prompts.interactive():
        text = f"note: mock {found[-1].number} is unfinished; `kata mock --resume` goes on with it."
        terminal.note(text)
        return None
    for mock in reversed(found):
        theirs = paper.decode(mock.plan)
        state = sitting.state_of(mock, theirs)
        if state.finished:  # an older kata may not have closed it
            continue
        lines = interview.unfinished(mock.number, mock.at, theirs, state, terminal.width())
        terminal.say(*lines)
        ask = "[g]o on, [a]bandon it, begin a [n]ew one, or [q]uit (Enter: go on): "
        typed = prompts.choice(ask, ("g", "a", "n", "q"), "g")
        if typed == "q":
            raise prompts.Left
        if typed == "a":
            _abandon(mock)
        else:
            return mock if typed == "g" else None
    return None


def _abandon(interview: "Interview") -> None:
    from grader.interview import held, sitting

    sitting.abandon(interview)
    report = held.report_of(interview)
    terminal.tell(f"Mock {interview.number} is abandoned; what you gave in it stays stored.")
    _write(report, interview.folder)
    terminal.say("")


def _list(json_: bool) -> int:
    from grader.interview import held
    from grader.views import interview_report

    reports = held.reports(held.every())
    if json_:
        terminal.say_json({"mocks": [json.mock(report) for report in reports]})
    else:
        terminal.say(*interview_report.listing(reports, terminal.width(), terminal.colour()))
    return 0


def _report(interview: "Interview", json_: bool) -> int:
    from grader.interview import held
    from grader.views import interview_report

    report = held.report_of(interview)
    if json_:
        terminal.say_json(json.mock_report(report))
        return 0
    terminal.say(*interview_report.page(report, terminal.width(), terminal.colour()))
    _write(report, interview.folder)
    return 0


def _write(report: "Report", folder: Path) -> None:
    """The Markdown and HTML pages, beside the interview's files."""
    from grader.views import interview_html, interview_report

    pages = {
        "report.md": interview_report.document(report),
        "report.html": interview_html.page(report),
    }
    terminal.say("")
    for name, text in pages.items():
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            terminal.note(f"note: {path} cannot be written: {error.strerror}.")
        else:
            terminal.say(f"Written: {path}")
