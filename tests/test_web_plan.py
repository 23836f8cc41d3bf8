"""The plan in a browser: the same plan, the same words, the same calendar as `kata plan`."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("latex2mathml")

from browsing import Inside, sound, text_of
from html_page import HOSTILE, Page

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
SET = {"interview": "2026-03-12", "minutes": "45", "deck": "core"}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inside:
    monkeypatch.setenv("KATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KATA_CLOCK", f"{NOW.isoformat()} x0")
    return Inside(tmp_path)


def _kata(folder: Path, *words: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"COLUMNS": "500"}
    done = subprocess.run(
        [sys.executable, "-m", "grader", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _plan(folder: Path) -> Any:
    return json.loads(_kata(folder, "plan", "--json"))["plan"]


def test_a_plan_is_made_shown_and_dropped(client: Inside, tmp_path: Path) -> None:
    """It is that of the terminal, which says the same of it: minutes, what will be known, each of
    the days, what is left out."""
    assert "There is no plan" in text_of(client.get("/plan").text)
    assert 'There is no <a href="/plan">plan</a>' in client.get("/").text
    answer = client.post("/plan", data=SET)
    assert (answer.status_code, answer.headers["location"]) == (303, "/plan")
    found = _plan(tmp_path)
    assert (found["interview"], found["minutes_per_day"]) == ("2026-03-12", 45)
    for address, words in (("/plan", ["plan"]), ("/plan?all", ["plan", "--all"])):
        page = text_of(client.get(address).text)
        told = [" ".join(line.split()) for line in _kata(tmp_path, *words).splitlines()]
        days = [line.replace(" min ", " ", 1) for line in told if re.search(r"\d+ min ", line)]
        for line in [*told[:3], *days[:9]]:
            assert line in page, line
    assert "longer than a day's minutes" not in page
    assert "Left out, least valuable first" in page
    assert "Interview in 10 days, Thu 12 Mar. 0 of 45 minutes done." in text_of(
        client.get("/").text
    )
    client.post("/plan", data={**SET, "deck": "all", "minutes": "500"})
    assert _plan(tmp_path)["deck"] == "all"
    assert "of 500 minutes, deck all." in text_of(client.get("/plan").text)
    assert client.post("/plan/clear").headers["location"] == "/plan"
    assert _plan(tmp_path) is None


def test_the_calendar_is_that_of_the_terminal(client: Inside, tmp_path: Path) -> None:
    assert client.get("/plan.ics").status_code == 404
    client.post("/plan", data=SET)
    answer = client.get("/plan.ics")
    assert answer.headers["content-type"].startswith("text/calendar")
    assert answer.headers["content-disposition"] == 'attachment; filename="kata-plan.ics"'
    _kata(tmp_path, "plan", "--ics", "plan.ics")
    assert answer.content == (tmp_path / "plan.ics").read_bytes()
    assert answer.content.count(b"BEGIN:VEVENT") > 5


@pytest.mark.parametrize(
    ("given", "part", "why"),
    [
        ({"interview": ""}, "interview", "Say on which day it is."),
        (
            {"interview": "soon"},
            "interview",
            "<code>soon</code> is no date. Write it as 2026-12-06.",
        ),
        ({"interview": "2026-02-28"}, "interview", "2026-02-28 is past: today is 2026-03-02."),
        ({"interview": "9999-12-31"}, "interview", "9999-12-31 is too far away"),
        ({"minutes": ""}, "minutes", "Wanted is a whole number from 5 to 720."),
        ({"minutes": "4"}, "minutes", "Wanted is a whole number from 5 to 720."),
        ({"minutes": "7e2"}, "minutes", "Wanted is a whole number from 5 to 720."),
        ({"minutes": "9" * 5000}, "minutes", "Wanted is a whole number from 5 to 720."),
        ({"deck": "other"}, "deck", "There is no deck <code>other</code>."),
    ],
)
def test_what_cannot_be_is_said_beside_its_field(
    client: Inside, tmp_path: Path, given: dict[str, str], part: str, why: str
) -> None:
    """What was given stands there still; nothing is stored."""
    answer = client.post("/plan", data={**SET, **given})
    assert answer.status_code == 422
    field = re.search(rf'<(?:input|select)[^>]* id="{part}"[^>]*>', answer.text)
    assert field is not None
    assert f'aria-invalid="true" aria-describedby="{part}-wrong" autofocus' in field[0]
    said = re.search(rf'<p class="bad" id="{part}-wrong">(.*?)</p>', answer.text)
    assert said is not None
    assert said[1].startswith(why)
    assert answer.text.count("aria-invalid") == 1
    for name in {"interview", "minutes"} - {part}:
        assert f'value="{SET[name]}"' in answer.text
    assert not (tmp_path / "home").exists()


def test_all_that_is_wrong_is_said_at_once(client: Inside) -> None:
    given = {"interview": "2026-03-01", "minutes": "x", "deck": "y"}
    answer = client.post("/plan", data=given)
    assert answer.text.count("aria-invalid") == 3
    assert answer.text.count("autofocus") == 1
    assert client.post("/plan", data={}).text.count("aria-invalid") == 2


def test_an_interview_that_is_over(
    client: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/plan", data=SET)
    monkeypatch.setenv("KATA_CLOCK", "2026-03-20T09:00:00+00:00 x0")
    page = text_of(client.get("/plan").text)
    assert "The interview of Thursday, 12 March 2026 is over." in page
    assert client.get("/plan.ics").status_code == 404
    client.post("/plan", data={**SET, "interview": "2026-04-01"})
    assert _plan(tmp_path)["interview"] == "2026-04-01"


def test_pages_are_sound_and_say_text(client: Inside) -> None:
    wrong = {"interview": HOSTILE, "minutes": HOSTILE, "deck": HOSTILE}
    pages = [client.get("/plan").text, client.post("/plan", data=wrong).text]
    client.post("/plan", data=SET)
    pages += [client.get("/plan").text, client.get("/plan?all").text]
    for source in pages:
        sound(Page(source))
        assert not re.search(r"<(script|img)", source)
    assert "&lt;script&gt;" in pages[1]


def test_another_site_changes_no_plan(client: Inside, tmp_path: Path) -> None:
    client.post("/plan", data=SET)
    for address in ("/plan", "/plan/clear"):
        headers = {"origin": "http://kata.example"}
        given = {**SET, "minutes": "100"}
        assert client.post(address, data=given, headers=headers).status_code == 403
    assert _plan(tmp_path)["minutes_per_day"] == 45
