"""`kata stats`: what the record adds up to, on the terminal, as JSON and as a page."""

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from html_page import HOSTILE, Page

from grader import catalog
from grader.exam.verdict import Check, Outcome, Part, Verdict
from grader.practice import repetition, statistics
from grader.practice.statistics import KataRecord, Recalled, Statistics, Topic
from grader.recall import bank
from grader.store import Store
from grader.store.attempts import Solve
from grader.store.memory import Rating
from grader.views import stats_html

Kata = Callable[..., "subprocess.CompletedProcess[str]"]

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The record that `kata` uses in this test."""
    return Store(tmp_path / "home" / "progress.db", create=True)


def answer(store: Store, number: int, at: datetime, rating: Rating = Rating.GOOD) -> str:
    """Answer and rate a question of the bank; returns its topic."""
    question = bank.load()[number]
    key, memory = f"question:{question.id}", store.memory
    repetition.rate(memory, key, rating, at, memory.answer(key, "said", at, seconds=90))
    return str(question.topic)


def solve(store: Store, slug: str, at: datetime, minutes: float, hints: int = 0) -> None:
    """Start a kata, fail once, and solve it so many minutes after the start."""
    attempts = store.attempts
    attempts.begin_round(slug, at)
    for _ in range(hints):
        attempts.next_hint(slug, 9, at)
    for passed, share in ((False, 0.5), (True, 1.0)):
        outcome = Outcome.PASSED if passed else Outcome.FAILED
        verdict = Verdict(
            slug=slug,
            seed=1,
            seconds=0.1,
            checks=(Check(name="a_rule", part=Part.SHAPE, outcome=outcome),),
        )
        attempts.record(verdict, None, at + timedelta(minutes=share * minutes))


def stats(kata: Kata, at: datetime = NOW, **more: str) -> dict[str, Any]:
    done = kata("stats", "--json", KATA_CLOCK=at.isoformat(), **{"TZ": "UTC", **more})
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_streaks() -> None:
    """A run reaches today or yesterday; days to come, of a clock set back, do not count."""
    day = date(2026, 3, 10)

    def ago(*days: int) -> list[date]:
        return [day - timedelta(days=number) for number in days]

    assert statistics.streaks([], day) == (0, 0)
    assert statistics.streaks(ago(0), day) == (1, 1)
    assert statistics.streaks(ago(1, 2, 3), day) == (3, 3)
    assert statistics.streaks(ago(2, 3, 4), day) == (0, 3)
    assert statistics.streaks(ago(0, 1, 3, 4, 5, 6), day) == (2, 4)
    assert statistics.streaks(ago(-1, -2, 0), day) == (1, 1)


def test_an_empty_record_has_a_friendly_page(kata: Kata, tmp_path: Path) -> None:
    """Nothing done yet is no error, on the terminal, as JSON and as a page."""
    done = kata("stats")
    assert done.returncode == 0
    assert "Nothing is recorded yet" in done.stdout
    assert "kata today" in done.stdout
    found = stats(kata)
    assert found["streak"] == found["answers"] == found["attempts"] == 0
    assert found["katas"] == []
    assert kata("stats", "--html", str(tmp_path / "page.html")).returncode == 0
    assert "Nothing is recorded yet" in (tmp_path / "page.html").read_text()
    assert not (tmp_path / "home").exists()


def test_the_numbers(kata: Kata, store: Store) -> None:
    """Answers, attempts, hints, times against par, recall by topic and what is weakest."""
    topic = answer(store, 0, NOW - timedelta(days=40), Rating.AGAIN)
    answer(store, 1, NOW - timedelta(days=1), Rating.EASY)
    solve(store, "lora_linear", NOW - timedelta(days=3), 30, hints=2)
    solve(store, "lora_linear", NOW - timedelta(days=1), 12)
    found = stats(kata)
    assert found["day"] == "2026-03-10"
    assert found["days"] == {"2026-01-29": 1, "2026-03-07": 2, "2026-03-09": 3}
    assert (found["streak"], found["longest_streak"]) == (1, 1)
    assert (found["answers"], found["attempts"]) == (2, 4)
    (kata_record,) = found["katas"]
    assert kata_record["slug"] == "lora_linear"
    assert kata_record["level"] == "complete"
    assert (kata_record["attempts"], kata_record["hints"]) == (4, 2)
    assert kata_record["par_seconds"] == 900
    solves = [(s["seconds"], s["against_par"], s["hints"]) for s in kata_record["solves"]]
    assert solves == [(1800, 2.0, 2), (720, 0.8, 0)]
    topics = {t["name"]: t for t in found["topics"]}
    assert list(topics) == list(bank.TOPICS)
    assert topics[topic]["seen"] == 2
    assert 0.4 < topics[topic]["recall"] < 0.9
    assert topics["serving"]["recall"] is None
    assert found["weakest_topic"] == topic
    assert [w["key"] for w in found["weakest"]] == [f"question:{bank.load()[0].id}"]


def test_the_page(kata: Kata, store: Store) -> None:
    """Charts in plain characters, within sixty columns, without colours."""
    for day in range(12):
        answer(store, day % 5, NOW - timedelta(days=day), Rating.HARD)
    answer(store, 6, NOW - timedelta(days=90), Rating.AGAIN)
    solve(store, "build_lora_adapter_model", NOW - timedelta(days=3), 100, hints=1)
    solve(store, "build_lora_adapter_model", NOW - timedelta(days=1), 9)
    page = kata("stats", KATA_CLOCK=NOW.isoformat(), TZ="UTC", COLUMNS="60").stdout
    assert max(map(len, page.splitlines())) <= 60, page
    assert "\x1b" not in page
    assert "Streak: 12 days" in page
    assert "░" in page
    assert f"`kata quiz --ask {bank.load()[6].id}`" in page
    assert "1:40:00 → 9:00" in page
    assert "███████│███████…" in page  # more than twice par
    assert "████   │" in page
    plain = kata("stats", KATA_CLOCK=NOW.isoformat(), TZ="UTC", PYTHONIOENCODING="ascii")
    assert plain.returncode == 0
    assert "?" not in plain.stdout


def test_a_night_belongs_to_the_day_before_in_the_learners_zone(kata: Kata, store: Store) -> None:
    """Three at night is still yesterday; which day an hour is depends on the zone."""
    answer(store, 0, datetime(2026, 3, 9, 3, 0, tzinfo=UTC))
    answer(store, 1, datetime(2026, 3, 9, 22, 0, tzinfo=UTC))
    assert stats(kata, TZ="UTC")["days"] == {"2026-03-08": 1, "2026-03-09": 1}
    assert stats(kata, TZ="Asia/Tokyo")["days"] == {"2026-03-09": 1, "2026-03-10": 1}
    assert stats(kata, TZ="America/New_York")["days"] == {"2026-03-08": 1, "2026-03-09": 1}


def test_a_clock_set_back_harms_nothing(kata: Kata, store: Store) -> None:
    """Days and solves from the future, and a round that ended before it began."""
    answer(store, 0, NOW + timedelta(days=30))
    answer(store, 1, NOW)
    solve(store, "lora_linear", NOW, -20)
    found = stats(kata)
    assert found["streak"] == 1
    assert found["katas"][0]["solves"] == []
    page = kata("stats", KATA_CLOCK=NOW.isoformat())
    assert page.returncode == 0
    assert "passed, no time" in page.stdout


def test_the_html_page_stands_alone(kata: Kata, store: Store, tmp_path: Path) -> None:
    """Well-formed, with its charts inside, light and dark, and nothing from elsewhere; an
    existing file is replaced only with --force."""
    for day in range(9):
        answer(store, day, NOW - timedelta(days=5 * day), Rating.HARD)
    solve(store, "lora_linear", NOW - timedelta(days=3), 30)
    solve(store, "lora_linear", NOW - timedelta(days=1), 10)
    path = tmp_path / "page.html"
    done = kata("stats", "--html", str(path), KATA_CLOCK=NOW.isoformat(), TZ="UTC")
    assert done.returncode == 0, done.stderr
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    page.stands_alone()
    assert {"svg", "table"} <= page.names
    # On a telephone a kata is a paragraph, in which the numbers need their names.
    katas = text.partition('<table class="full katas">')[2].partition("</table>")[0]
    assert '<td class="number" data-name="par">15:00</td>' in katas
    assert katas.count('<td class="number"') == katas.count("data-name=")
    assert "lora_linear, 9 March 2026: 0.7 times par" in text
    path.write_text("mine")
    again = kata("stats", "--html", str(path))
    assert again.returncode == 2
    assert "--force replaces it" in again.stderr
    assert path.read_text() == "mine"
    assert kata("stats", "--html", str(path), "--force").returncode == 0
    assert path.read_text() != "mine"


def test_the_html_page_takes_names_as_text() -> None:
    """What stands in the store or the catalogue is text, whatever it holds."""
    solve = Solve(HOSTILE, NOW, 60.0, 0, False)
    found = Statistics(
        day=NOW.date(),
        days={NOW.date(): 1},
        streak=1,
        longest=1,
        answers=1,
        hunts=0,
        topics=(Topic(HOSTILE, 1, 1, 0.5),),
        decks=(Topic("core", 1, 1, 0.5),),
        weakest=(Recalled(f"question:{HOSTILE}", 0.5),),
        katas=(KataRecord(HOSTILE, 1, 0, 0, "core", (solve,)),),
    )
    page = Page(stats_html.page(found, {HOSTILE: catalog.cards()[0]}))
    page.stands_alone()
    assert page.text.count(HOSTILE) == 4  # topic, weakest, a point of the chart, kata
