"""Hunts, mocks and quizzes sat in a browser without script, broken off at every write: the store
ends as if nothing had happened, and as if they had been sat in a terminal."""

import asyncio
import html
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("latex2mathml")

from breaking import (  # noqa: E402
    NOW,
    PAPER,
    Breaks,
    State,
    breaks,
    home,
    judge,
    stored,
    take,
    whole_and_broken,
)

from grader.exam.verdict import Trouble, Verdict  # noqa: E402
from grader.interview import anew  # noqa: E402
from grader.interview import sitting as sittings  # noqa: E402
from grader.interview.sitting import Sitting  # noqa: E402
from grader.practice import hunt  # noqa: E402
from grader.practice.workspace import Workspace  # noqa: E402
from grader.recall import bank, quiz  # noqa: E402
from grader.store import Store  # noqa: E402
from grader.store.memory import Rating  # noqa: E402
from grader.web.app import Web  # noqa: E402
from grader.web.judge import Judge  # noqa: E402
from grader.web.live import Runs  # noqa: E402

__all__ = ["breaks", "home"]  # fixtures

pytestmark = pytest.mark.slow


class Here(Judge):
    """Judges in this process: what says that it is right is right."""

    def ready(self) -> None:
        pass

    def grade(self, slug: str, source: bytes | Trouble, name: str, **_: Any) -> Verdict:
        return judge(slug, source, name)


class Browser:
    """One without script: it looks at a page and presses a button of it."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.page = ""

    async def look(self, address: str) -> bool:
        """Whether that is where the page is."""
        answer = await self._client.get(address)
        self.page = answer.text
        return int(answer.status_code) == 200

    def field(self, name: str) -> str:
        """A hidden field, or the text of a file."""
        found = re.search(rf'name="{name}" value="([^"]*)"', self.page)
        found = found or re.search(
            rf'<textarea[^>]* name="{name}"[^>]*>\n(.*?)</textarea>', self.page, re.DOTALL
        )
        return "" if found is None else html.unescape(found[1])

    async def press(self, address: str, **given: str) -> None:
        assert f'action="{address}"' in self.page, address
        for name in ("turn", "base", "page", "hunt"):
            given.setdefault(name, self.field(name))
        answer = await self._client.post(address, data=given)
        assert answer.status_code == 303, answer.text

    async def keep(self, address: str, text: str) -> None:
        """What its script would send while one types."""
        answer = await self._client.post(address, data={"turn": self.field("turn"), "text": text})
        assert answer.status_code == 204


def life(work: Path, sit: Callable[[Browser], Awaitable[None]], killed: bool) -> None:
    """A server from its start until it has been sat through, or broken off: by a kill, or so that
    it can still say that it ends."""

    async def lived() -> None:
        web = Web(Workspace(work, "from a test"), 1, "token")
        web.judge = Here()
        web.runs = Runs(web.judge, web.streams)
        transport = httpx.ASGITransport(app=web.inner)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://kata") as client:
                await sit(Browser(client))
        except BaseException:
            if not killed:
                web.mocks.end()
                await web.runs.close()
                await web.mocks.leave()
            raise

    asyncio.run(lived())


def in_terminal(home: Path, play: Callable[[], None]) -> State:
    """The end where a terminal calls the steps; the home is as before then."""
    kept = home.with_name("kept")
    shutil.copytree(home, kept)
    play()
    found = stored(home)
    shutil.rmtree(home)
    shutil.move(kept, home)
    return found


async def sit(browser: Browser) -> None:
    """As `take` does: one step after another, by what the page shows alone."""
    while await browser.look("/mock/1"):
        page, at = browser.page, "/mock/1"
        if f"{at}/resume" in page:
            await browser.press(f"{at}/resume")
            continue
        number, kind = browser.field("turn").split("-")[:2]
        place = f"{at}/{int(number) + 1}"
        if kind == "question":
            await answer(browser, at)
        elif kind == "hunt":
            text = browser.field("text")
            await browser.press(f"{at}/diagnose", diagnosis=" the\nscale ", text=text)
        elif kind == "work" and "Hint 1 of" in page:
            await browser.press(f"{at}/hint", rung="1", text=browser.field("text"))
        elif kind == "work" and 'data-graded="0"' in page:
            await browser.press(f"{place}/run", text="wrong")
        elif kind == "work" and 'data-graded="1"' in page and number != "3":
            await browser.press(f"{place}/save", text="right")
        elif kind == "work":
            await browser.press(f"{at}/next", text=browser.field("text"))
        elif kind == "mistakes":
            await browser.press(f"{at}/seen")
        elif kind == "compare" and f"{at}/tick" in page:
            await browser.press(f"{at}/tick", **{"point-0": "on"})
        elif kind == "compare":
            await browser.press(f"{at}/weigh", share="partly")
        else:
            await browser.press(f"{at}/judge", right="yes")


async def answer(browser: Browser, at: str) -> None:
    page = browser.page
    if f"{at}/number" in page:
        await browser.press(f"{at}/number", number="" if "unnumbered?" in page else " 8 ")
    elif "skipped?" in page:
        await browser.press(f"{at}/skip", text="")
    elif "number?" in page or "unnumbered?" in page:
        await browser.press(f"{at}/answer", text="because\r\n")
    elif "typed?" in page:
        await browser.keep(f"{at}/draft", "7 or")
        await browser.press(f"{at}/answer", text="8")
    else:
        await browser.press(f"{at}/answer", text="")


@pytest.mark.parametrize("killed", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_mock(breaks: Breaks, home: Path, monkeypatch: pytest.MonkeyPatch, killed: bool) -> None:
    """All that a terminal stores of the same sitting, but lines as they are typed: a page gives an
    answer whole."""
    interview = sittings.begin(PAPER, NOW)
    numeric = next(q for q in bank.load() if q.numeric is not None)
    monkeypatch.setattr(bank, "question", lambda id: numeric)

    def steps() -> None:
        sitting = Sitting(interview)
        sitting.start()
        while (step := sitting.step()) is not None:
            take(sitting, step)

    terminal = _without_drafts(in_terminal(home, steps))
    work = home.with_name("work")
    whole, broken, count = whole_and_broken(breaks, home, lambda: life(work, sit, killed))
    assert _without_drafts(whole) == terminal
    assert _without_drafts(broken) == terminal
    assert count > 150
    assert [row["text"] for row in whole["answers"]] == ["8", "8\nbecause", "\nbecause", ""]


def _without_drafts(state: State) -> State:
    """But for what stands in a field, and lines as they are typed."""
    events = [row for row in state["interview_events"] if row["kind"] != "typed"]
    settings = [row for row in state["settings"] if not row["key"].startswith("mock:")]
    return {**state, "interview_events": events, "settings": settings}


def test_a_hunt(breaks: Breaks, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From planting to its rating: all that a terminal stores of the same one."""
    monkeypatch.setattr(anew, "seed", lambda: 1)

    def steps() -> None:
        found = hunt.plant("lora_linear", hunt.chosen_bug("lora_linear", 1), NOW)
        found, _ = hunt.next_hint(found, NOW)
        found = hunt.diagnose(found, "the scale", NOW)
        found.path.write_bytes(b"right")
        found, _ = hunt.grade(found, judge, NOW)
        hunt.close(found, True, NOW)

    async def hunting(browser: Browser) -> None:
        at = "/bugs/lora_linear"
        with Store.open(create=False) as store:
            if store.memory.reviews() and not hunt.opened():
                return
        await browser.look(at)
        if 'name="hunt"' not in browser.page:
            await browser.press("/bugs", slug="lora_linear")
            await browser.look(at)
        if "Hint 1 of" in browser.page:
            await browser.press(f"{at}/hint", rung="1", text=browser.field("text"))
            await browser.look(at)
        if "It comes before" in browser.page or "Say it<" in browser.page:
            text = browser.field("text")
            await browser.press(f"{at}/diagnose", diagnosis="the scale", text=text)
            await browser.look(at)
        if f"{at}/run" in browser.page:
            await browser.press(f"{at}/run", text="right")
            await browser.look(at)
        await browser.press(f"{at}/judge", right="yes")
        await browser.look(at)
        assert "rated good" in browser.page

    terminal = in_terminal(home, steps)
    work = home.with_name("work")
    whole, broken, count = whole_and_broken(breaks, home, lambda: life(work, hunting, True))
    assert whole == terminal
    assert broken == terminal
    assert count > 15


def test_a_quiz(breaks: Breaks, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, drafts, answers, a follow-up, ticks and ratings: of each question once, as in a
    terminal. A follow-up may be asked again where its quiz broke off."""
    questions = [q for q in bank.load() if q.numeric is None][:2]
    questions += [q for q in bank.load() if q.numeric is not None][:2]
    monkeypatch.setattr(bank, "load", lambda folder=None: tuple(questions))
    monkeypatch.setattr("grader.web.quiz.secrets.randbelow", lambda _: 1)
    first, last = questions[0].id, questions[-1].id

    def steps() -> None:
        with Store.open(create=True) as store:
            sitting = quiz.Sitting(store.memory, questions, quiz.Options(), NOW)
            while (turn := sitting.next(NOW, 1)) is not None:
                given = ""
                if turn.wants_number:
                    given = "" if turn.question.id == last else "8"
                    sitting.number(turn, given, NOW)
                    given += "\n"
                sitting.give(turn, f"{given}one\ntwo", NOW, 0.001)
                if turn.question.id == first:
                    sitting.follow_up(turn, NOW)
                    sitting.give_follow_up(turn, "because", NOW, 0.001)
                sitting.tick(turn, (0, 1))
                sitting.rate(turn, Rating.GOOD, NOW)
            sitting.end(NOW)

    async def quizzing(browser: Browser) -> None:
        await browser.look("/quiz")
        await browser.press("/quiz")
        while await browser.look("/quiz") and 'id="turn"' in browser.page:
            page = browser.page
            if 'action="/quiz/number"' in page:
                await browser.press("/quiz/number", number="" if f"<title>{last} " in page else "8")
            elif 'action="/quiz/give"' in page:
                await browser.press("/quiz/keep", text="one")
                await browser.look("/quiz")
                await browser.press("/quiz/give", text="one\r\ntwo")
            elif 'action="/quiz/said"' in page:
                await browser.press("/quiz/keep", text="beca")
                await browser.look("/quiz")
                await browser.press("/quiz/said", text="because")
            elif 'action="/quiz/tick"' in page and f"<title>{first} " in page and not said():
                await browser.press("/quiz/followup")
            elif 'action="/quiz/tick"' in page:
                await browser.press("/quiz/tick", **{"point-0": "", "point-1": ""})
            else:
                await browser.press("/quiz/rate", rating="3")

    def said() -> bool:
        with Store.open(create=False) as store:
            return any(answer.finished for answer in store.memory.answers(f"followup:{first}/1"))

    terminal = in_terminal(home, steps)
    work = home.with_name("work")
    whole, broken, count = whole_and_broken(breaks, home, lambda: life(work, quizzing, True))
    assert whole == terminal
    assert broken == terminal
    assert count > 60
    assert len(whole["answers"]) == 5
