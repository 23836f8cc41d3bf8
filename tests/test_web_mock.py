"""Mock interviews in a browser, beside `kata mock`: real servers, one for most tests here."""

import asyncio
import contextlib
import html
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("latex2mathml")

from breaking import NOW, PAPER  # noqa: E402
from browsing import PATIENCE_S, Served, Tab, sound, text_of, until  # noqa: E402
from html_page import HOSTILE, Page  # noqa: E402
from msgspec.structs import replace  # noqa: E402

from grader import catalog, content  # noqa: E402
from grader.interview import sitting as sittings  # noqa: E402
from grader.interview.paper import Ask, Kind, Paper, Round  # noqa: E402
from grader.interview.sitting import Sitting  # noqa: E402
from grader.practice import stubs  # noqa: E402
from grader.practice.workspace import Workspace  # noqa: E402
from grader.store import StoreError  # noqa: E402
from grader.web import bundle, seat  # noqa: E402
from grader.web import mock as mock_pages  # noqa: E402
from grader.web.app import Web  # noqa: E402
from grader.web.live import Runs  # noqa: E402

pytestmark = pytest.mark.slow

MOCK, KATA = "/static/mock.js", [a for a in (bundle.editor(), "/static/kata.js") if a]
SLUG = "bitfit"
ASKS = tuple(
    Ask(
        id=f"q{n}",
        topic="lora",
        prompt=f"Prompt {n} $x^{n}$",
        answer=f"Good {n}",
        points=("One", "Two"),
    )
    for n in range(2)
)
SHORT = Paper(
    seed=1,
    minutes=15,
    level=PAPER.level,
    focus=None,
    rounds=(
        Round(kind=Kind.WARMUP, minutes=4, asks=ASKS),
        Round(kind=Kind.CODING, minutes=5, par=5, slug=SLUG),
        Round(kind=Kind.HUNT, minutes=4, par=4, slug="ia3_linear", bug="scale-added"),
        Round(kind=Kind.DEBRIEF, minutes=2),
    ),
)
FORMS = ("number", "answer", "skip", "draft", "diagnose", "hint", "seen", "tick", "weigh", "judge")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("mock")).running() as running:
        yield running


class Mock:
    """An interview in a browser without script."""

    def __init__(self, served: Served, paper: Paper = SHORT, number: int | None = None) -> None:
        self.served = served
        if number is None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("KATA_HOME", served.environment["KATA_HOME"])
                number = sittings.begin(paper, NOW).number
        self.number, self.at = number, f"/mock/{number}"

    def look(self) -> str:
        answer = self.served.client.get(self.at)
        assert answer.status_code == 200, answer.headers
        return str(answer.text)

    @property
    def over(self) -> bool:
        return bool(self.served.client.get(self.at).status_code == 303)

    def go_on(self) -> "Mock":
        self.post("resume", 303)
        return self

    def post(self, what: str, status: int, **given: str) -> str:
        answer = self.served.client.post(f"{self.at}/{what}", data=given)
        assert answer.status_code == status, text_of(answer.text)
        return str(answer.text)

    def press(
        self, what: str, status: int = 303, page: str = "", ticked: str = "", **given: str
    ) -> str:
        """A button of the page, or of an older one."""
        page = page or self.look()
        hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
        return self.post(what, status, **{**dict(hidden), **given, ticked or "none": "on"})

    def events(self) -> list[dict[str, Any]]:
        """What is stored, without beats."""
        with contextlib.closing(sqlite3.connect(self.served.root / "home" / "progress.db")) as base:
            rows = base.execute(
                "SELECT kind, data, clock_s FROM interview_events WHERE interview = ? ORDER BY uid",
                (self.number,),
            ).fetchall()
        return [{"kind": k, "clock_s": c, **json.loads(d)} for k, d, c in rows if k != "beat"]

    @property
    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.events()]

    def tab(self) -> Tab:
        tab = Tab(self.served, self.at)
        found = re.search(r'id="work"[^>]* data-at="([^"]*)"', tab.html)
        assert found is not None
        tab.at = found[1]
        return tab

    def path(self, name: str = f"{SLUG}.py") -> Path:
        return self.served.root / "home" / "interviews" / str(self.number) / name


def text_in(page: str) -> str:
    """What stands in the field for the answer."""
    found = re.search(r'<textarea id="text"[^>]*>\n(.*?)</textarea>', page, re.DOTALL)
    assert found is not None
    return html.unescape(found[1])


def in_terminal(served: Served, *lines: str) -> subprocess.CompletedProcess[str]:
    """`kata mock --resume` with these lines typed, until they end."""
    return subprocess.run(
        [sys.executable, "-m", "grader", "mock", "--resume"],
        cwd=served.work,
        env=served.environment,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_new_one(served: Served) -> None:
    """The options of the command; the paper is looked at before the clock runs, and is in the
    list; the same form twice makes one."""
    form = {"minutes": "30", "level": "junior", "deck": "all", "focus": "core", "seed": "4"}
    answers = [served.client.post("/mock", data=form) for _ in range(2)]
    assert len({answer.headers["location"] for answer in answers}) == 1
    mock = Mock(served, number=int(answers[0].headers["location"].rpartition("/")[2]))
    page = text_of(mock.look())
    outline = json.loads(
        served.kata(
            *("mock", "--plan", "--minutes", "30", "--level", "junior", "--deck", "all"),
            *("--focus", "core", "--seed", "4", "--json"),
        )
    )
    for round in outline["rounds"]:
        assert f"{round['kind']}, {round['minutes']} min" in page
    assert mock.events() == []
    assert "unfinished" in text_of(served.client.get("/mock").text)
    assert f"{mock.number} " in served.kata("mock", "--list")
    for wrong in ({"minutes": "14"}, {"minutes": "1e2"}, {"level": "x"}, {"deck": "x"}):
        answer = served.client.post("/mock", data={**form, **wrong})
        assert answer.status_code == 400, wrong
    mock.post("abandon", 303)
    assert mock.over
    assert "abandoned" in text_of(served.client.get(f"{mock.at}/report").text)
    assert served.client.get("/mock/99").status_code == 404


def test_a_whole_one(served: Served) -> None:
    """Each round, to the report; what is coded and hunted is judged like anywhere."""
    mock = Mock(served).go_on()
    mock.press("answer", text="one\r\n\r\n  two  \r\n")
    mock.press("skip", text="")
    tab = mock.tab()
    assert tab.text == stubs.stub(SLUG)
    right = content.solution(SLUG).read_text()
    name, data = tab.run(right.replace("    return biases", "    return []"))
    assert (name, data["passed"]) == ("verdict", False)
    assert "/solution" not in data["html"]
    name, data = tab.result(tab.save(right).json()["run"])
    assert (name, data["passed"], data["graded"]) == ("verdict", True, 2)
    number = tab.save(right).json()["run"]
    assert tab.result(number)[1]["graded"] == 2  # nothing has changed
    assert data["html"] in mock.look()
    mock.press("hint", rung="1", text=right, base=tab.base)
    hint = " ".join(catalog.entry(SLUG).hints[0].replace("`", "").split())
    assert hint in text_of(mock.look())
    mock.press("next", text=f"{right}# last\n")
    tab = mock.tab()
    bug = catalog.entry("ia3_linear").bug("scale-added")
    assert tab.run(None)[0] == "trouble"
    mock.press("diagnose", diagnosis="the scale", text=tab.text)
    name, data = tab.run(None)
    assert bug.title not in text_of(data["html"])
    mock.press("next")
    mock.press("tick", ticked="point-1")
    mock.press("weigh", share="no")
    assert bug.title in text_of(mock.look())
    mock.press("judge", right="yes")
    assert mock.over
    assert mock.kinds == [
        *("began", "answered", "answered", "ended"),
        *("began", "graded", "graded", "hinted", "graded", "ended"),
        *("began", "diagnosed", "graded", "ended", "began", "ticked", "ticked", "judged", "ended"),
    ]
    events = mock.events()
    assert [e["text"] for e in events if e["kind"] == "answered"] == ["one\n\n  two", ""]
    assert [e["by"] for e in events if e["kind"] == "graded"] == ["enter", "save", "next", "enter"]
    report = served.client.get(f"{mock.at}/report")
    sound(Page(report.text))
    told = text_of(report.text)
    assert re.search(
        r'<li><a href="/(?:quiz\?ask=|katas/|bugs/|mock)[^"]*"><code>kata ', report.text
    )
    assert "diagnosis right" in told
    shown = served.kata("mock", "--report", str(mock.number))
    assert re.search(r"\((\d+) of 100\)", told)[1] in shown  # type: ignore[index]
    assert "no longer" not in told
    assert served.history(SLUG)["versions"][-1]["reason"] == "mock"


def test_a_killed_server_loses_nothing(served: Served, tmp_path: Path) -> None:
    """Nor what stands in the field; the clock has not run meanwhile, and the report tells."""
    killed = Served(tmp_path)
    with killed.running():
        mock = Mock(killed).go_on()
        page = mock.look()
        mock.press("draft", 204, text="half an <answer")
        killed.process.kill()
        killed.process.wait()
    with killed.running():
        told = mock.look()
        assert "broken off; nothing that you gave is lost" in text_of(told)
        assert "Prompt" not in told
        stale = mock.press("answer", 409, page, text="too late")
        assert "too late" in stale
        mock.go_on()
        page = mock.look()
        assert text_in(page) == "half an <answer"
        mock.press("answer", text="the whole of it")
        assert text_in(mock.look()) == ""
        mock.press("skip", text="rather this")
        mock.path().write_text("saved = 1\n")
        until(lambda: "graded" in mock.kinds, "it is not graded")
        killed.process.kill()
        killed.process.wait()
    with killed.running():
        mock.go_on()
        assert mock.tab().text == "saved = 1\n"
        assert mock.kinds.count("began") == 2
        killed.client.post(f"{mock.at}/abandon", data={})
        answers = [e["text"] for e in mock.events() if e["kind"] == "answered"]
        assert answers == ["the whole of it", "rather this"]
        assert "Interrupted" in text_of(killed.client.get(f"{mock.at}/report").text)


def test_a_server_that_ends_pauses(tmp_path: Path) -> None:
    stopped = Served(tmp_path)
    with stopped.running():
        mock = Mock(stopped).go_on()
        stopped.process.terminate()
        stopped.process.wait()
    last = mock.events()[-1]
    assert (last["kind"], last["reason"]) == ("paused", "kata web ended")


def test_from_a_terminal_and_back(served: Served) -> None:
    """Lines typed there stand here, a draft of here stands there; never in both at once."""
    mock = Mock(served)
    done = in_terminal(served, "first line", "second line")
    assert "is paused" in done.stderr
    mock.go_on()
    assert "first line second line" in text_of(mock.look())
    refused = in_terminal(served)
    assert refused.stderr == f"error: Mock {mock.number} goes on in another window.\n"
    mock.press("draft", 204, text="third line")
    mock.press("pause", text="third line\r\nfourth", reason="the\ndoor")
    assert "Paused: the door." in text_of(mock.look())
    done = in_terminal(served, "fifth", "", "")
    assert re.search(r"So far:\s+first line\s+second line\s+third line\s+fourth", done.stdout)
    texts = [e["text"] for e in mock.events() if e["kind"] == "answered"]
    assert texts == ["first line\nsecond line\nthird line\nfourth\nfifth", ""]
    mock.go_on()
    assert mock.tab().text == stubs.stub(SLUG)
    mock.post("abandon", 303)
    assert served.kata("mock", "--resume").startswith("error: No mock is unfinished")


def test_one_that_goes_on_in_a_terminal_is_not_gone_on_with(served: Served) -> None:
    mock = Mock(served)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KATA_HOME", served.environment["KATA_HOME"])
        (interview,) = [i for i in _all() if i.number == mock.number]
        with sittings.alone(interview):
            assert "goes on in another window" in mock.post("resume", 409)
            assert "goes on in another window" in mock.post("abandon", 409)
    assert mock.events() == []
    mock.go_on().post("abandon", 303)


def _all() -> list[Any]:
    from grader.interview import held

    return held.every()


def test_two_tabs(served: Served) -> None:
    """No event twice; a form of an older turn gets the round as it is, with what was typed."""
    mock = Mock(served).go_on()
    mock.post("resume", 303)
    one = mock.look()
    mock.press("answer", text="mine")
    stale = mock.press("answer", 409, one, text="typed <b> in the other tab")
    assert "typed &lt;b&gt; in the other tab" in stale
    assert "Prompt 1" in stale
    assert text_in(stale) == ""
    two = mock.look()
    mock.press("skip", page=two, text="")
    assert "What you had typed" not in mock.press("skip", 409, two, text="")
    work, tab = mock.look(), mock.tab()
    mock.press("hint", page=work, rung="1", text=tab.text)
    mock.press("hint", 409, work, rung="1", text=tab.text)
    mock.press("next", page=work, text=tab.text)
    mock.press("next", 409, work, text="a = 1\n")
    assert tab.post("save", text="a = 1\n").status_code == 409
    assert mock.path().read_text() == stubs.stub(SLUG)
    late = served.client.get(f"{tab.at}/events?page=x")
    assert late.status_code == 409
    hunt = mock.look()
    mock.press("pause", page=hunt)
    mock.press("pause", page=hunt)
    assert mock.kinds == [
        *("began", "answered", "answered", "ended"),
        *("began", "hinted", "graded", "ended", "began", "paused"),
    ]
    mock.go_on().post("abandon", 303)
    mock.press("diagnose", 409, hunt, diagnosis="x") if not mock.over else None
    assert mock.kinds[-2:] == ["resumed", "abandoned"]


def test_what_stands_in_the_editor_goes_along(served: Served) -> None:
    """With every button; where the file is another by now, both are kept."""
    mock = Mock(served).go_on()
    for _ in range(2):
        mock.press("skip")
    tab = mock.tab()
    mock.press("pause", text="paused = 1\n", base=tab.base)
    assert mock.path().read_text() == "paused = 1\n"
    mock.go_on()
    tab = mock.tab()
    mock.path().write_text("theirs = 1\n")
    refused = mock.press("hint", 409, text="mine = 1\n", base=tab.base, rung="1")
    assert "mine = 1" in refused
    mock.press("pause", text="mine = 2\n", base=tab.base)
    assert "Paused." in text_of(mock.look())
    kept = [file.read_text() for file in mock.path("kept").iterdir()]
    assert sorted(kept) == ["mine = 2\n", "theirs = 1\n"]
    assert mock.path().read_text() == "theirs = 1\n"
    mock.post("abandon", 303)


def test_saves_of_another_editor_are_graded(served: Served) -> None:
    """Once each, and every page learns of it by the clock."""
    mock = Mock(served).go_on()
    for _ in range(2):
        mock.press("skip")
    tab = mock.tab()
    with tab.events() as events:
        assert next(d["graded"] for n, d in events if n == "clock") == 0
        mock.path().write_text(content.solution(SLUG).read_text())
        told = next(d for n, d in events if n == "clock" and d["graded"])
    assert (told["graded"], told["turn"]) == (1, "1-work")
    last = served.client.get(f"{tab.at}/last").json()
    assert (last["graded"], "passed, complete" in last["html"]) == (1, True)
    graded = [event for event in mock.events() if event["kind"] == "graded"]
    assert [(e["by"], e["passed"]) for e in graded] == [("save", True)]
    mock.post("abandon", 303)
    with tab.served.client.stream("GET", f"{mock.at}/events?page=y") as answer:
        assert answer.status_code == 404


def test_the_clock(tmp_path: Path) -> None:
    """It is the interview's: ten times as fast where KATA_CLOCK says so, across a kill, with the
    warnings that are due; a page shows what the server says."""
    fast = Served(tmp_path)
    clock = tmp_path / "clock"
    clock.write_text("2026-03-02T09:00:00+00:00 x30")
    fast.environment["KATA_CLOCK"] = f"@{clock}"
    with fast.running():
        mock = Mock(fast).go_on()
        assert re.search(r'id="left"[^>]*>(3:\d\d|4:00) left<', mock.look())
        with fast.client.stream("GET", f"{mock.at}/events?page=z") as answer:
            told = (json.loads(x[6:]) for x in answer.iter_lines() if x.startswith("data: "))
            seen = next(t for t in told if t["said"])
            assert seen["said"] == "1:00 left in this round."
            over = next(t for t in told if t["said"].startswith("Time is up"))
            assert "OVER" in next(t for t in told if t["left"].endswith("OVER"))["left"]
            assert over["late"]
        assert "OVER" in mock.look()
        fast.process.kill()
        fast.process.wait()
    used = mock.events()[-1]["clock_s"]
    with fast.running():
        mock.go_on()
        again = mock.events()[-1]
        assert again["kind"] == "resumed"
        assert again["away_s"] > 0
        assert used <= again["clock_s"] < used + 30 * 10
        mock.press("pause")
        stood = mock.events()[-1]["clock_s"]
        mock.go_on()
        assert mock.events()[-1]["clock_s"] == pytest.approx(stood, abs=1.0)
    warned = [event["minutes"] for event in mock.events() if event["kind"] == "warned"]
    assert warned == [1, 0]


def test_whatever_is_shown_is_text(served: Served) -> None:
    """Questions, answers, reasons, files, output; and every page is sound."""
    ask = Ask(id="q", topic="lora", prompt=HOSTILE, answer=HOSTILE, points=(HOSTILE, "Two"))
    rounds = (replace(SHORT.rounds[0], asks=(ask, ask)), *SHORT.rounds[1:])
    mock = Mock(served, replace(SHORT, rounds=rounds, notes=(HOSTILE,)))
    sound(Page(mock.look()))
    mock.go_on()
    page = mock.look()
    sound(Page(page), MOCK)
    assert "alert(1)" in Page(page).text
    mock.press("pause", text=HOSTILE, reason=HOSTILE)
    sound(Page(mock.look()))
    mock.go_on()
    assert text_in(mock.look()).split() == HOSTILE.split()
    mock.press("answer", text=HOSTILE)
    stale = mock.press("answer", 409, page, text=HOSTILE)
    sound(Page(stale), MOCK)
    mock.press("skip", text=HOSTILE)
    sound(Page(mock.look()), MOCK, *KATA)
    tab = mock.tab()
    assert not Page(tab.run(f"raise ValueError({HOSTILE!r})\n")[1]["html"]).names & {
        "script",
        "img",
    }
    answered = stubs.stub(SLUG).replace("raise NotImplementedError", "return None")
    printed = f"print({HOSTILE!r})\n{answered}"
    assert not Page(tab.run(printed)[1]["html"]).names & {"script", "img"}
    sound(Page(mock.look()), MOCK, *KATA)
    mock.press("next")
    mock.press("diagnose", diagnosis=HOSTILE, text=mock.tab().text)
    sound(Page(mock.look()), MOCK, *KATA)
    mock.press("next")
    while not mock.over:
        page = mock.look()
        sound(Page(page), MOCK)
        what = re.search(r'<form id="debrief" method="post" action="[^"]*/(\w+)">', page)
        assert what is not None
        mock.press(what[1], page=page, right="no", ticked="point-0")
    report = served.client.get(f"{mock.at}/report").text
    sound(Page(report))
    assert "onerror=alert(1)" in Page(report).text
    sound(Page(served.client.get("/mock").text))


def test_a_number_comes_first(served: Served) -> None:
    """It is stored and judged before the rest is asked for; what is no number stays in the field,
    with a word beside it. Enter in a field never pauses."""
    from grader.recall import bank

    numeric = next(q for q in bank.load() if q.numeric is not None)
    ask = Ask(
        id=numeric.id,
        topic="lora",
        prompt="How many?",
        answer="8",
        points=("One",),
        numeric=True,
        draw=3,
    )
    mock = Mock(
        served, replace(SHORT, rounds=(replace(SHORT.rounds[0], asks=(ask,)), *SHORT.rounds[1:]))
    )
    mock.go_on()
    bad = mock.press("number", 422, number="not <b> one")
    assert 'value="not &lt;b&gt; one"' in bad
    sound(Page(bad), MOCK)
    assert mock.kinds == ["began"]
    assert 'form="answer"' not in bad
    mock.press("answer", 409, text="the rest alone")
    mock.press("number", number="-77")
    page = mock.look()
    assert "That is not right" in page
    mock.press("number", 409, bad, number="5")
    mock.press("answer", text="because")
    (given,) = [event for event in mock.events() if event["kind"] == "answered"]
    assert (given["text"], given["correct"]) == ("-77\nbecause", False)
    mock.post("abandon", 303)


def test_a_grading_does_not_hold_up_the_rest(served: Served) -> None:
    """While a file hangs the clock goes on, hints come, and a pause puts an end to it."""
    mock = Mock(served).go_on()
    for _ in range(2):
        mock.press("skip")
    tab = mock.tab()
    number = tab.begin("import time\ntime.sleep(1000)\n")
    with tab.events() as events:
        clocks = [d["left"] for n, d in (next(events) for _ in range(4)) if n == "clock"]
    assert len(clocks) >= 2
    mock.press("hint", rung="1")
    mock.press("pause")
    assert mock.kinds[-2:] == ["hinted", "paused"]
    mock.go_on()
    assert tab.result(number)[0] == "stopped"
    mock.post("abandon", 303)


def test_another_site_changes_nothing(served: Served) -> None:
    mock = Mock(served).go_on()
    with httpx.Client(base_url=served.origin, cookies=served.client.cookies) as client:
        for what in (*FORMS, "resume", "pause", "abandon", "next", "1/save", "1/run", "1/take"):
            data = {"turn": "0-question-0-0", "text": "x"}
            answer = client.post(f"{mock.at}/{what}", data=data, headers={"origin": "null"})
            assert answer.status_code == 403, what
        new = client.post("/mock", data={"minutes": "30", "seed": "1"}, headers={})
        assert new.status_code == 403
    assert mock.kinds == ["began"]
    mock.post("abandon", 303)


def inside(work: Path, sit: Callable[[Any], Awaitable[None]]) -> None:
    """A server in this process, and a browser that sits."""

    async def lived() -> None:
        web = Web(Workspace(work, "from a test"), 1, "token")
        web.runs = Runs(web.judge, web.streams)
        transport = httpx.ASGITransport(app=web.inner, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://kata") as client:
            await sit(client)
        web.mocks.end()
        await web.runs.close()
        await web.mocks.leave()

    asyncio.run(asyncio.wait_for(lived(), PATIENCE_S))


def test_who_has_gone_is_paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that nobody looks at, in no page, does not run on for ever; a page keeps it going."""
    monkeypatch.setenv("KATA_HOME", str(tmp_path))
    monkeypatch.setattr(mock_pages, "_TICK_S", 0.02)
    interview = sittings.begin(SHORT, NOW)

    async def sit(client: Any) -> None:
        await client.post("/mock/1/resume")
        monkeypatch.setattr(seat, "GONE_S", 1.0)
        for _ in range(15):
            assert "Prompt 0" in (await client.get("/mock/1")).text
            await asyncio.sleep(0.1)
        while "Paused: no page was open." not in (await client.get("/mock/1")).text:
            await asyncio.sleep(1.1)

    inside(tmp_path, sit)
    with sittings.alone(interview):
        assert sittings.state_of(interview, SHORT).paused


def test_what_cannot_be_stored_stays_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say: nothing has happened, and nothing that was typed is gone."""
    monkeypatch.setenv("KATA_HOME", str(tmp_path))
    interview = sittings.begin(SHORT, NOW)

    def full(*_: object) -> None:
        raise StoreError("The disk is full.")

    async def sit(client: Any) -> None:
        await client.post("/mock/1/resume")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sitting, "answer", full)
            form = {"turn": "0-question-0-0", "text": "all of <it>"}
            answer = await client.post("/mock/1/answer", data=form)
            assert answer.status_code == 500
            assert "The disk is full." in answer.text
            assert "all of &lt;it&gt;" in answer.text
            patch.setattr(Sitting, "answer", lambda *_: 1 / 0)
            answer = await client.post("/mock/1/answer", data=form)
            assert (answer.status_code, "all of &lt;it&gt;" in answer.text) == (500, True)
        assert "Prompt 0" in (await client.get("/mock/1")).text
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sitting, "pause", full)
            form = {"turn": "0-question-0-0", "text": "a <draft>"}
            answer = await client.post("/mock/1/pause", data=form)
            assert (answer.status_code, "The disk is full." in answer.text) == (409, True)
        assert "Go on" in (await client.get("/mock/1")).text
        await client.post("/mock/1/resume")
        assert "a &lt;draft&gt;</textarea>" in (await client.get("/mock/1")).text

    inside(tmp_path, sit)
    state = sittings.state_of(interview, SHORT)
    assert state.rounds[0].answers == {}
    assert [stop.reason for stop in state.breaks] == ["broken off", "kata web ended"]
