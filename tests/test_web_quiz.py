"""The quiz in a browser: its pages and forms as a browser without script uses them, and what is
stored, beside what the terminal stores."""

import contextlib
import html
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import small_bank

pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("latex2mathml")

from browsing import Inside, Served, sound, text_of
from html_page import HOSTILE, Page

from grader.cli.terminal import legend
from grader.errors import StoreError
from grader.practice import repetition
from grader.recall import bank
from grader.store import Store
from grader.store.memory import Rating
from grader.views import mathml

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
STILL = f"{NOW.isoformat()} x0"
STEPS = (
    *("draft", "keep", "number", "give", "tick", "rate", "followup", "said", "skip", "undo"),
    "end",
)
Rows = Callable[[str], list[tuple[Any, ...]]]


class Browser:
    """A browser without script: it presses buttons of the page that it shows."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.html = ""

    def go(self, address: str = "/quiz") -> "Browser":
        answer = self.client.get(address)
        assert answer.status_code == 200, answer.text
        self.html = answer.text
        return self

    def tab(self) -> "Browser":
        """Another tab, at the same place."""
        return Browser(self.client).go()

    @property
    def text(self) -> str:
        return text_of(self.html)

    @property
    def turn(self) -> str:
        found = re.search(r'name="turn" value="([\w-]+)"', self.html)
        assert found is not None
        return found[1]

    @property
    def area(self) -> str:
        """What stands in the field for the answer."""
        found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", self.html, re.DOTALL)
        assert found is not None
        return html.unescape(found[1])

    def begin(self, **given: str) -> "Browser":
        answer = self.client.post("/quiz", data=given)
        assert (answer.status_code, answer.headers["location"]) == (303, "/quiz")
        return self.go()

    def press(self, what: str, **given: str) -> "Browser":
        """The page that follows on a step."""
        answer = self.client.post(f"/quiz/{what}", data={"turn": self.turn, **given})
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"] == "/quiz"
        return self.go()

    def draft(self, text: str) -> int:
        """What the script does at a pause in typing."""
        answer = self.client.post("/quiz/draft", data={"turn": self.turn, "text": text})
        if answer.status_code == 200:
            self.html = self.html.replace(self.turn, answer.json()["turn"])
        return int(answer.status_code)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small bank, a clock that stands, and a data folder of this test's."""
    questions = bank.load(small_bank.clone(tmp_path / "clone", small_bank.ONE_DRAW) / "questions")
    monkeypatch.setattr(bank, "load", lambda folder=None: questions)
    monkeypatch.setenv("KATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KATA_CLOCK", STILL)
    return tmp_path / "home"


@pytest.fixture
def browser(home: Path, tmp_path: Path) -> Browser:
    return Browser(Inside(tmp_path))


@pytest.fixture
def rows(home: Path) -> Rows:
    return lambda sql: _rows(home, sql)


def _rows(home: Path, sql: str) -> list[tuple[Any, ...]]:
    uri = (home / "progress.db").as_uri() + "?mode=rw"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
        return database.execute(sql).fetchall()


def _terminal(tmp_path: Path, home: Path, given: str, *arguments: str) -> str:
    """What `kata quiz` says to what is typed."""
    environment = {
        **{k: v for k, v in os.environ.items() if k != "NO_COLOR"},
        "KATA_HOME": str(home),
        "PYTHONPATH": str(tmp_path / "clone"),
        "COLUMNS": "100",
    }
    done = subprocess.run(
        [sys.executable, "-m", "grader", "quiz", *arguments],
        cwd=tmp_path,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_store_is_that_of_the_terminal(browser: Browser, home: Path, tmp_path: Path) -> None:
    """The same answers, ticks, ratings, follow-ups and one rating taken back give the same
    answers, reviews and cards; both fronts say the same of them."""
    page = browser.begin()
    assert "4 new." in page.text
    page.press("give", text="mine\r\nmore\r\n").press("tick", **{"point-0": "", "point-2": ""})
    assert "2 of 4 points, which suggests: hard." in page.text
    assert "Rated hard. Due again in 15 minutes." in page.press("rate", rating="2").text
    page.press("give", text="").press("followup").press("said", text="because")
    assert "Because of b." in page.text
    page.press("tick", **{f"point-{n}": "" for n in range(4)}).press("rate", rating="3")
    page.press("undo")
    assert "Taken back: the rating of b. Rate it again." in page.text
    page.press("rate", rating="4")
    page.press("give", text="c it is").press("tick").press("rate", rating="1")
    assert "Type a number of parameters, such as" in page.text
    page.press("number", number="8,192")
    why = "✗ Not right: you gave 8192 parameters; it is 16,384 parameters."
    slip = "why: Only A is counted, 8192; B is as large."
    assert f"{why} {slip}" in page.text
    page.press("give", text="no bias").press("tick", **{"point-1": ""}).press("rate", rating="1")
    told = _terminal(
        tmp_path,
        tmp_path / "other",
        "mine\nmore\n\n1 3\n\n\nf\nbecause\n\nall\n3\nu\n4\nc it is\n\n\n1\n"
        "8,192\nno bias\n\n2\n1\n",
    )
    # The terminal's `u` is typed at the third question, and the answer to it follows.
    assert f"{why}\n  {slip}" in told
    for table in (
        "SELECT key, at, seconds, text, correct, points FROM answers ORDER BY uid",
        "SELECT key, at, rating, undone FROM reviews ORDER BY uid",
        "SELECT key, memory, due FROM cards ORDER BY key",
        "SELECT ended IS NULL FROM quizzes",
    ):
        here = _rows(home, table)
        assert here == _rows(tmp_path / "other", table), told
        assert here
    end = browser.go().text
    for text in ("4 answered in 0:00: 2 again, 1 hard, 1 easy.", "7 of 15 points said, 0 of 1"):
        assert text in end
        assert text in told
    assert "Nothing more for now. The next is due in 10 minutes." in end


def test_the_answer_comes_after_ones_own(browser: Browser) -> None:
    """Formulas are set, the answer and the rubric are nowhere in the page before."""
    page = browser.begin(topic="lora", limit="2")
    assert "Question 1 of 2" in page.text
    assert "lora · recall · easy · a · new" in page.text
    assert "<mfrac>" in page.html
    assert not re.search("model answer|point one|Because", page.html, re.IGNORECASE)
    page.press("give", text="a < b")
    assert "A model answer to a" in page.text
    assert html.escape("a < b") in page.html
    assert page.html.count('type="checkbox"') == 4
    assert "Because" not in page.html
    page.press("followup")
    assert "Follow-up 1 of 2" in page.text
    assert "Because" not in page.html


def test_a_number_is_judged_at_once(browser: Browser, rows: Rows) -> None:
    """What cannot be read is said beside it, with what was typed; nothing typed is none given."""
    page = browser.begin(ask="count")
    answer = browser.client.post("/quiz/number", data={"turn": page.turn, "number": 'ma"ny'})
    assert answer.status_code == 422
    assert 'ma"ny holds no number. Wanted is a number of parameters' in text_of(answer.text)
    assert 'value="ma&#34;ny"' in answer.text
    assert rows("SELECT * FROM answers") == []
    given = {"turn": page.turn, "number": "16."}
    assert browser.client.post("/quiz/draft", data=given).status_code == 200
    assert 'value="16."' in page.go().html
    page.press("number", number=" 16.4k ")
    assert "✓ Right: 16,384 parameters." in page.text
    assert "Model answer" not in page.text
    assert rows("SELECT text, correct, seconds FROM answers") == [("16.4k", 1, None)]
    page.press("give", text="two factors\n\nno bias").press("tick").press("rate")
    assert rows("SELECT text FROM answers") == [("16.4k\ntwo factors\n\nno bias",)]
    page.begin(ask="count").press("number", number="")
    assert "No number. Now the rest:" in page.text
    page.press("give", text="words")
    assert "The number is 16,384 parameters." in page.text
    assert rows("SELECT text, correct FROM answers ORDER BY uid")[1:] == [("\nwords", None)]


def test_what_is_typed_is_stored_as_it_is_typed(
    browser: Browser, rows: Rows, tmp_path: Path
) -> None:
    """A reload shows it; a server that was killed goes on with it, follow-ups as well."""
    page = browser.begin(topic="lora")
    assert page.draft("half of") == 200
    assert page.draft("half of it\n\n  and") == 200
    assert rows("SELECT text, seconds FROM answers") == [("half of it\n\n  and", None)]
    assert page.tab().area == "half of it\n\n  and"
    again = Browser(Inside(tmp_path)).begin(topic="lora")
    assert "You were answering this when the last quiz broke off. So far:" in again.text
    assert "1 to go on with from last time, 2 new." in again.text
    assert again.area == "half of it\n\n  and"
    again.press("give", text=f"{again.area} more").press("followup")
    assert again.draft("well, be") == 200
    third = Browser(Inside(tmp_path)).begin()
    assert "You answered this, and it is not rated yet." in third.text
    assert third.press("followup").area == "well, be"
    third.press("said", text="well, because")
    assert rows("SELECT key, text, seconds IS NULL FROM answers ORDER BY uid") == [
        ("question:a", "half of it\n\n  and more", 0),
        ("followup:a/1", "well, because", 0),
    ]
    with_number = Browser(Inside(tmp_path)).begin(ask="count").press("number", number="1")
    assert with_number.draft("first the") == 200
    assert Browser(Inside(tmp_path)).begin(ask="count").area == "first the"


def test_an_older_page_changes_nothing(browser: Browser, rows: Rows) -> None:
    """Two tabs: what one gives after the other has gone on is neither stored nor lost."""
    one = browser.begin(topic="lora")
    two = one.tab()
    late = one.tab()
    one.press("give", text="mine").press("tick").press("rate", rating="3")
    before = [rows(f"SELECT * FROM {table}") for table in ("answers", "reviews", "cards")]
    assert two.draft("other") == 409
    two.press("give", text="other words")
    assert "Question 2 of 3" in two.text
    assert "The quiz had gone on when that came." in two.text
    assert "other words" in two.text
    assert two.area == ""
    for what in STEPS[1:]:
        old = late.turn
        late.press(what, rating="1", text="third", number="7", **{"point-0": ""})
        late.html = re.sub(r'name="turn" value="[\w-]+"', f'name="turn" value="{old}"', late.html)
    assert [rows(f"SELECT * FROM {table}") for table in ("answers", "reviews", "cards")] == before
    assert "other words third" in late.tab().text
    # A form that was sent twice is the same answer, and nothing was lost of it.
    page = one.go()
    twice = page.tab()
    page.press("give", text="two")
    assert "What you had typed" not in twice.press("give", text="two").text
    assert rows("SELECT text FROM answers") == [("mine",), ("two",)]
    # A step that this turn has not yet.
    assert "Model answer" in page.press("rate", rating="4").text
    assert rows("SELECT rating FROM reviews") == [(3,)]


def test_a_form_that_is_sent_twice(browser: Browser, rows: Rows) -> None:
    """Once is stored, and nothing is said to have been lost."""
    page = browser.begin(topic="lora").press("give", text="one").press("followup")
    for what, given in (
        ("said", {"text": "three"}),
        ("tick", {"point-0": ""}),
        ("rate", {"rating": "3"}),
        ("skip", {"text": "four"}),
        ("end", {"text": "five"}),
    ):
        twice = Browser(page.client)
        twice.html = page.html
        page.press(what, **given)
        assert twice.press(what, **given).text == page.text
        assert "What you had typed" not in page.text
    assert rows("SELECT key, text FROM answers ORDER BY uid") == [
        ("question:a", "one"),
        ("followup:a/1", "three"),
        ("question:b", "four"),
        ("question:c", "five"),
    ]
    assert rows("SELECT rating FROM reviews") == [(3,)]


def test_two_tabs_that_write_to_one_question(browser: Browser, rows: Rows) -> None:
    """The later one does not take the place of what the first has stored."""
    one = browser.begin()
    two = one.tab()
    assert one.draft("a long answer") == 200
    assert two.draft("x") == 409
    two.press("give", text="x")
    assert two.area == "a long answer"
    assert "What you had typed It is stored with no answer: copy from it what you need. x" in (
        two.text
    )
    assert rows("SELECT text, seconds FROM answers") == [("a long answer", None)]
    two.press("give", text="a long answer, x")
    assert "What you had typed" not in two.text


def test_a_question_that_was_rated_in_a_terminal(
    browser: Browser, rows: Rows, home: Path, tmp_path: Path
) -> None:
    """Meanwhile: it is not answered twice, the quiz moves on, and what was typed is there."""
    page = browser.begin(topic="lora")
    assert "Rated easy." in _terminal(tmp_path, home, "said there\n\nall\n\n", "--ask", "a")
    page.press("give", text="said here")
    assert "a was rated elsewhere meanwhile." in page.text
    assert "said here" in page.text
    assert "in b?" in page.text
    assert rows("SELECT key, text FROM answers") == [("question:a", "said there")]
    # It shows at a look as well, and a draft is kept.
    assert page.draft("b, half") == 200
    assert "Rated easy." in _terminal(tmp_path, home, "\nall\n\n", "--ask", "b")
    assert "b was rated elsewhere meanwhile." in page.go().text
    assert "b, half" in page.text
    assert "in c?" in page.text
    # Given here and rated there: the rating here would be a second one.
    page.press("give", text="c here").press("tick")
    assert "Rated easy." in _terminal(tmp_path, home, "\nall\n\n", "--ask", "c")
    page.press("rate", rating="1")
    assert rows("SELECT key, rating FROM reviews ORDER BY uid") == [
        ("question:a", 4),
        ("question:b", 4),
        ("question:c", 4),
    ]
    assert "That was it" in page.text


def test_skip_undo_and_end(browser: Browser, rows: Rows) -> None:
    """What is typed is stored by each of them; the rating of the last question can be taken back
    when the quiz is over, and goes on from there."""
    page = browser.begin(topic="lora")
    assert "No rating was given in this quiz yet." in page.press("undo", text="begun").text
    assert page.area == "begun"
    assert "in b?" in page.press("skip", text="begun, left").text
    page.press("give", text="").press("tick").press("rate", rating="1")
    page.press("undo", text="c, half")
    assert "in b?" in page.text
    page.press("rate", rating="3")
    assert (page.area, "in c?" in page.text) == ("c, half", True)
    page.press("end", text="c, more")
    assert "1 answered in 0:00: 1 good." in page.text
    assert "2 answers are stored without a rating" in page.text
    assert rows("SELECT text FROM answers ORDER BY key") == [("begun, left",), ("",), ("c, more",)]
    assert "Taken back: the rating of b." in page.press("undo").text
    assert (
        page.press("rate", rating="4").text.startswith("Quiz · kata") or "That was it" in page.text
    )
    assert rows("SELECT rating, undone FROM reviews ORDER BY uid") == [(1, 1), (3, 1), (4, 0)]
    page.begin()
    assert "2 to go on with from last time" in page.text
    assert page.area == "begun, left"


def test_a_rating_of_an_earlier_quiz_is_taken_back(browser: Browser, tmp_path: Path) -> None:
    browser.begin(ask="a").press("give").press("tick").press("rate", rating="3")
    later = Browser(Inside(tmp_path)).go().press("undo")
    assert "Taken back: good for a. A quiz asks for its rating again" in later.text
    assert "There is no rating of a quiz to take back." in later.press("undo").text
    assert "You answered this aloud, and it is not rated yet." in later.begin().text


def test_each_goes_on_with_the_others_quiz(
    browser: Browser, home: Path, tmp_path: Path, rows: Rows
) -> None:
    """An answer left unrated in one front is what the next quiz of the other begins with."""
    browser.begin(topic="lora").press("give", text="from here").press("end")
    told = _terminal(tmp_path, home, "1\n3\nfrom there\n\n2\n")
    assert "You answered this, and it is not rated yet. You said:\n  > from here" in told
    assert "Rated good." in told
    page = browser.begin()
    assert "2 to go on with" not in page.text
    assert "2 of 4 points" not in page.text
    assert "1 of 4 points, which suggests: again." in page.text
    assert "from there" in page.text
    page.press("rate", rating="2")
    assert rows("SELECT text, points, rating FROM answers JOIN reviews ON answer = answers.id") == [
        ("from here", "[0]", 3),
        ("from there", "[1]", 2),
    ]


def test_a_server_that_was_killed_loses_nothing(tmp_path: Path) -> None:
    """`kata quiz` goes on with the answer that was being typed."""
    with Served(tmp_path / "served").running() as served:
        page = Browser(served.client).begin(ask="lora-reparameterisation")
        assert page.draft("W plus B A") == 200
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
        told = served.kata("quiz", "--ask", "lora-reparameterisation")
    assert "You were answering this when the last quiz broke off. So far:\n  > W plus B A" in told


def test_a_store_that_refuses_loses_nothing(
    browser: Browser, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was typed is shown again, and can be given once there is room."""
    page = browser.begin()

    def refuse(*_: Any, **__: Any) -> None:
        raise StoreError("No space is left for the progress file.")

    with monkeypatch.context() as full:
        full.setattr("grader.store.memory.Memory.answer", refuse)
        asked = {"turn": page.turn, "text": "not yet"}
        answer = browser.client.post("/quiz/give", data=asked)
        assert (answer.status_code, "No space is left" in answer.text) == (500, True)
        drafted = browser.client.post("/quiz/draft", data=asked)
        assert (drafted.status_code, drafted.json()["error"][:17]) == (500, "No space is left ")
    page.go()
    assert "not yet" in page.text
    assert rows("SELECT * FROM answers") == []
    assert "Model answer" in page.press("give", text="not yet").text
    assert rows("SELECT text FROM answers") == [("not yet",)]
    page.press("tick")
    with monkeypatch.context() as full:
        full.setattr("grader.store.memory.Memory.add_review", refuse)
        asked = {"turn": page.turn, "rating": "2"}
        assert browser.client.post("/quiz/rate", data=asked).status_code == 500
    assert "in a?" in page.go().text
    assert "in b?" in page.press("rate", rating="2").text
    assert "Question 2 of 4" in page.text
    assert rows("SELECT rating FROM reviews") == [(2,)]


def test_what_cannot_be_begun(browser: Browser, home: Path) -> None:
    """It is said beside the field, or as a plain page; no quiz is stored."""
    for limit in ("0", "-1", "many", "1001", "1" * 50, "²"):
        answer = browser.client.post("/quiz", data={"topic": "rank", "limit": limit})
        assert answer.status_code == 422
        assert "Wanted is a whole number from 1 to 1000" in text_of(answer.text)
        assert 'aria-describedby="limit-wrong"' in answer.text
        assert "<option selected>rank</option>" in answer.text
    for given in ({"topic": "x"}, {"deck": "x"}):
        assert browser.client.post("/quiz", data=given).status_code == 400
    for answer in (
        browser.client.get("/quiz?ask=cuont"),
        browser.client.post("/quiz", data={"ask": "cuont"}),
    ):
        assert answer.status_code == 404
        assert "No question is called 'cuont'. Did you mean count?" in text_of(answer.text)
    assert browser.client.post("/quiz/other", data={}).status_code == 404
    assert not home.exists()


def test_today_leads_to_its_questions(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the queue, those that are weak, and the topic that is."""
    page = browser.go("/").html
    for id in ("a", "b", "c", "count"):
        assert f'<a href="/quiz?ask={id}">{id}</a>' in page
    assert '<a href="/quiz">Begin with the questions</a>' in page
    assert "terminal" not in page
    for id in ("a", "count"):
        browser.begin(ask=id)
        if id == "count":
            browser.press("number", number="1")
        browser.press("give").press("tick").press("rate", rating="1")
    monkeypatch.setenv("KATA_CLOCK", "2026-03-06T09:00:00+00:00 x0")
    page = browser.go("/").html
    weak = page[page.index('id="weak"') :]
    assert '<a href="/quiz?ask=a">a</a>' in weak
    assert re.search(r'Weakest topic: <a href="/quiz\?topic=(lora|rank)">', weak)


def test_a_link_to_a_question_begins_nothing(browser: Browser, home: Path) -> None:
    """It is asked by a button; a quiz that is open is said, and goes on after the question."""
    page = browser.go("/quiz?ask=count")
    assert "count rank · apply · easy Ask it" in page.text
    assert "<option selected>rank</option>" in browser.go("/quiz?topic=rank").html
    assert not home.exists()
    page.begin(topic="lora").press("keep", text="a, half")
    assert "A quiz is open, at question 1" in browser.go("/quiz?ask=count").text
    assert page.go("/quiz?ask=a").area == "a, half"
    page.begin(ask="count").press("number", number="16384").press("give").press("tick")
    page.press("rate").begin(topic="lora")
    assert page.area == "a, half"


def test_without_the_schedule(browser: Browser, rows: Rows) -> None:
    page = browser.begin(cram="on", topic="lora", limit="1")
    assert "Cramming 1, weakest first; the schedule stays as it is." in page.text
    page.press("give", text="x").press("tick", **{"point-1": ""})
    assert "1 answered in" in page.text
    assert "1 of 4 points." in page.text
    assert rows("SELECT points FROM answers") == [("[1]",)]
    assert rows("SELECT * FROM reviews") == rows("SELECT * FROM cards") == []


def test_a_quiz_of_yesterday_that_was_left(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an answer begun it is gone on with; else the day begins with its own queue."""
    browser.begin(topic="lora")
    monkeypatch.setenv("KATA_CLOCK", "2026-03-02T09:30:00+00:00 x0")
    assert "Question 1 of 3" in browser.go().text
    monkeypatch.setenv("KATA_CLOCK", "2026-03-03T09:00:00+00:00 x0")
    assert "What is asked" in browser.go().text
    browser.begin(topic="lora").press("keep", text="late")
    monkeypatch.setenv("KATA_CLOCK", "2026-03-04T09:00:00+00:00 x0")
    assert browser.go().area == "late"


# Pages


def _stages(browser: Browser) -> list[str]:
    """A page of each stage."""
    pages = [browser.go().html, browser.go("/quiz?ask=count").html]
    pages.append(browser.begin(ask="count").html)
    pages.append(browser.press("number", number="1").html)
    pages.append(browser.press("give", text="mine").html)
    pages.append(browser.press("followup").html)
    pages.append(browser.press("said", text="so").html)
    pages.append(browser.press("tick", **{"point-0": ""}).html)
    pages.append(browser.go("/quiz?tick").html)
    pages.append(browser.go().press("rate").html)
    return pages


def test_pages_are_sound_and_work_without_script(browser: Browser) -> None:
    """Each step of a turn is a button of a form; the fields have labels, the keys are said."""
    for source in _stages(browser):
        page, turn = Page(source), 'id="turn"' in source
        sound(page, *["/static/quiz.js"] * turn)
        forms = [attributes for tag, attributes in page.tags if tag == "form"]
        assert forms
        assert {form["method"] for form in forms} == {"post"}
        assert [tag for tag, a in page.tags if "autofocus" in a].count("textarea") <= 1
        if turn:
            assert 'id="keys"' in source


def test_keys_are_those_of_the_terminal(browser: Browser) -> None:
    """The same letters for follow-up, ticking again, undo and leaving; the ratings' numbers and
    first letters; the points' numbers."""
    pages = _stages(browser)
    keys = [set(" ".join(re.findall(r'data-keys="([^"]+)"', page)).split()) for page in pages]
    leave = {legend.UNDO.letter, legend.LEAVE.letter, legend.NEXT.letter}
    assert all(leave <= some for some in keys[2:9])
    ticking, rating = keys[4], keys[7]
    assert {"1", "2", "3", "a", "Enter", legend.FOLLOW_UP.letter} <= ticking
    assert {legend.TICK.letter, legend.FOLLOW_UP.letter, "Enter"} <= rating
    assert {f"{int(r)}" for r in Rating} | {r.name[0].lower() for r in Rating} <= rating
    assert 'data-keys="1 a Enter" class="first" autofocus' in pages[7]
    for page, some in zip(pages[2:9], keys[2:9], strict=True):
        told = text_of(page[page.index('id="keys"') :])
        assert not [
            key for key in some - {"Submit", "1", "2", "3", "4", "Enter"} if key not in told
        ]


def test_what_questions_and_learners_say_is_text(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Markup in a question, its rubric, sources and slips, in answers, numbers, addresses."""
    import msgspec

    dangerous = [
        msgspec.structs.replace(
            question,
            prompt=f"{HOSTILE} in {question.id}",
            answer=HOSTILE,
            points=(HOSTILE, "two"),
            followups=(bank.FollowUp(HOSTILE, HOSTILE),),
            sources=(HOSTILE,),
        )
        for question in bank.load()
        if question.id in ("a", "count")
    ]
    monkeypatch.setattr(bank, "load", lambda folder=None: tuple(dangerous))
    page = browser.begin(ask="a")
    pages = [page.html]
    late = page.tab()
    page.draft(HOSTILE)
    pages.append(page.tab().html)
    pages.append(page.press("give", text=HOSTILE).html)
    pages.append(page.press("followup").html)
    page.draft(HOSTILE)
    pages.append(page.tab().html)
    pages.append(page.press("said", text=HOSTILE).html)
    pages.append(late.press("give", text=f"{HOSTILE}, late").html)
    pages.append(page.go().press("tick").html)
    page.begin(ask="count")
    turn = {"turn": page.turn, "number": HOSTILE}
    pages.append(browser.client.post("/quiz/number", data=turn).text)
    pages.append(browser.client.post("/quiz", data={"limit": HOSTILE}).text)
    address = {"ask": HOSTILE}
    pages.append(browser.client.get("/quiz", params=address).text)
    pages.append(browser.client.get("/quiz", params={"topic": HOSTILE, "limit": HOSTILE}).text)
    for source in pages:
        assert not re.search(r"<script(?! src=\"/static/quiz.js\")|<img|<i>", source)
        found = Page(source)
        assert found.open == []
        assert not [n for _, a in found.tags for n in a if n.startswith("on")]
    assert sum("&lt;script&gt;alert(1)&lt;/script&gt;" in source for source in pages) >= 9


def test_every_point_of_the_bank_is_a_line() -> None:
    """What stands beside a box is no paragraph, and its formulas are set."""
    for question in bank.load():
        for point in question.points:
            shown = str(mathml.line(point))
            assert not re.search(r"<(p|ul|pre|div)\b", shown), question.id
            assert "<code>\\" not in shown, question.id


def test_another_site_asks_and_answers_nothing(browser: Browser, rows: Rows) -> None:
    page = browser.begin()
    before = rows("SELECT * FROM quizzes"), rows("SELECT * FROM answers")
    for origin in ("http://kata.example", "null", "http://localhost:8000"):
        for what in ("", *(f"/{step}" for step in STEPS)):
            given = {"turn": page.turn, "text": "theirs", "rating": "1"}
            headers = {"origin": origin}
            answer = browser.client.post(f"/quiz{what}", data=given, headers=headers)
            assert answer.status_code == 403, what
    assert (rows("SELECT * FROM quizzes"), rows("SELECT * FROM answers")) == before
    assert page.go().area == ""


def test_a_card_that_was_taken_from_the_record_elsewhere(browser: Browser, rows: Rows) -> None:
    """An undo in a terminal, of the question that is open here: the quiz goes on."""
    page = browser.begin(ask="a").press("give").press("tick").press("rate", rating="3")
    page.begin(ask="a").press("give", text="again")
    with Store.open(create=True) as store:
        assert repetition.undo(store.memory) is not None
    assert "a was rated elsewhere meanwhile." in page.press("tick").text
    assert rows("SELECT rating, undone FROM reviews") == [(3, 1)]
