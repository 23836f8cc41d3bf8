"""Mock interviews: the paper, the clock, and sittings through the real `kata`."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from terminals import Terminal

from grader import catalog, content
from grader.exam.verdict import Level
from grader.interview import choice, paper, setter, timing
from grader.interview import sitting as sittings
from grader.interview.choice import Grade
from grader.interview.events import (
    Answered,
    Began,
    Break,
    Ended,
    Event,
    Graded,
    Paused,
    Resumed,
    State,
    Typed,
)
from grader.interview.paper import Ask, Kind, Paper, Round
from grader.interview.record import Record
from grader.practice import hunt, stubs
from grader.recall import bank
from grader.store import Store
from grader.store.attempts import Standing
from grader.views import interview as pages

pytestmark = pytest.mark.slow

S = TypeVar("S", bound=msgspec.Struct)


def question(id: str, topic: str, *, numeric: bool = False, katas: bool = True) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": id,
        "topic": topic,
        "kind": "apply" if numeric else "recall",
        "difficulty": "medium",
        "prompt": f"What of {id}" + (", with [[d]] inputs?" if numeric else "?"),
        "answer": f"The answer to {id}.",
        "points": ["The first point.", "The second point.", "The third point."],
        "followups": [{"prompt": f"Why {id} {n}?", "answer": f"Because {n}."} for n in (1, 2)],
        "sources": ["Hu et al. 2021"],
        "katas": catalog.slugs() if katas else [],
    }
    if numeric:
        fields["numeric"] = {
            "draw": {"d": [4, 8]},
            "answer": "2 * d",
            "unit": "parameters",
            "tolerance": 0.01,
            "slips": [{"value": "d", "why": "Both factors count."}],
        }
    return fields


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a small bank of its own."""
    folder = tmp_path / "clone"
    (folder / "questions").mkdir(parents=True)
    top = Path(__file__).parent.parent
    for name in ("grader", "solutions", "katas"):
        (folder / name).symlink_to(top / name)
    questions = {
        "lora": [question("lora-a", "lora"), question("lora-b", "lora", katas=False)],
        "rank": [question("rank-n", "rank", numeric=True, katas=False)],
        "serving": [question("serving-a", "serving", katas=False)],
    }
    for topic, items in questions.items():
        (folder / "questions" / f"{topic}.yaml").write_text(json.dumps(items))
    return folder


@pytest.fixture
def world(clone: Path, tmp_path: Path, environment: dict[str, str]) -> Iterator["World"]:
    world = World(clone, tmp_path, environment)
    yield world
    world.close()


class World:
    """A data folder, a clock that stands still until it is told, and sittings."""

    def __init__(self, clone: Path, tmp_path: Path, environment: dict[str, str]) -> None:
        self.clone, self.home = clone, tmp_path / "home"
        self.clock = tmp_path / "clock"
        self.environment = {**environment, "KATA_CLOCK": f"@{self.clock}"}
        self.sittings: list[Sitting] = []
        self.set_clock(0)

    def set_clock(self, seconds: float) -> None:
        """So many seconds after nine, standing still. Replaced in one step: it is read often."""
        hours, rest = divmod(int(seconds), 3600)
        temporary = self.clock.with_suffix(".new")
        temporary.write_text(f"2026-03-02T{9 + hours:02}:{rest // 60:02}:{rest % 60:02}+00:00 x0")
        temporary.replace(self.clock)

    def kata(self, *arguments: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "grader", *arguments],
            cwd=self.clone,
            env={**self.environment, **extra},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def sit(self, *arguments: str) -> "Sitting":
        self.sittings.append(Sitting(self, arguments))
        return self.sittings[-1]

    def store(self) -> Store:
        return Store(self.home / "progress.db", create=False)

    def close(self) -> None:
        for sitting in self.sittings:
            sitting.process.kill()
            for stream in (sitting.process.stdin, sitting.process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    stream.close()  # type: ignore[union-attr]
            sitting.process.wait()


class Sitting:
    """`kata mock` with its streams in our hands."""

    def __init__(self, world: World, arguments: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "grader", "mock", *arguments],
            cwd=world.clone,
            env=world.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.seen = ""

    def until(self, *texts: str) -> str:
        """Read on until the texts have come, in this order; all that came until then."""
        assert self.process.stdout is not None
        found = ""
        for text in texts:
            deadline = time.monotonic() + 60
            while text not in self.seen:
                ready, _, _ = select.select([self.process.stdout], [], [], 1)
                piece = os.read(self.process.stdout.fileno(), 65536) if ready else b""
                self.seen += piece.decode()
                ended = ready and not piece
                assert not ended, f"ended without {text!r}: {found}{self.seen}"
                assert time.monotonic() < deadline, f"no {text!r}: {found}{self.seen}"
            before, _, self.seen = self.seen.partition(text)
            found += before + text
        return found

    def type(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self.process.stdin.flush()

    def end(self) -> tuple[int, str]:
        """Close its input, wait; exit code and what it still wrote."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        rest = self.process.stdout.read().decode()
        return self.process.wait(60), self.seen + rest


# The paper


def sample(clone: Path, **options: Any) -> Paper:
    record = options.pop("record", Record())
    return setter.paper(record, catalog.cards(), bank.load(clone / "questions"), **options)


def test_rounds_fill_the_minutes(clone: Path) -> None:
    """Whatever is asked for: the minutes are met exactly, par times fit, and no kata comes
    twice."""
    for minutes in (15, 16, 20, 29, 30, 44, 45, 60, 75, 90, 120):
        for level in Grade:
            for seed in range(3):
                made = sample(clone, seed=seed, minutes=minutes, level=level)
                assert sum(r.minutes for r in made.rounds) == minutes
                assert all(r.minutes >= r.par for r in made.rounds)
                kinds = [r.kind for r in made.rounds]
                assert kinds[0] is Kind.WARMUP
                assert kinds[-1] is Kind.DEBRIEF
                assert 1 <= kinds.count(Kind.CODING) <= 2
                assert kinds.count(Kind.HUNT) == (minutes >= 30)
                slugs = [r.slug for r in made.rounds if r.slug]
                assert len(set(slugs)) == len(slugs)


def test_the_seed_and_the_record_decide(clone: Path) -> None:
    """The same seed gives the same paper, another one another."""
    papers = [sample(clone, seed=seed, minutes=45) for seed in range(8)]
    assert papers == [sample(clone, seed=seed, minutes=45) for seed in range(8)]
    assert len({p.rounds[1].slug for p in papers}) > 3


def test_it_leans_on_what_is_due_and_never_on_what_is_fresh(clone: Path) -> None:
    """Due and weak katas come more often; what was just solved or answered never."""
    slugs = catalog.slugs()
    due, *easy = (card.slug for card in catalog.cards() if card.difficulty == "easy")
    fresh = frozenset(f"kata:{slug}" for slug in easy[:3])
    record = Record(
        standings={slug: Standing(Level.COMPLETE, 1) for slug in slugs},
        due=frozenset({f"kata:{due}"}),
        fresh=fresh | {"question:lora-a"},
    )
    coded = []
    for seed in range(60):
        made = sample(clone, seed=seed, minutes=60, level=Grade.JUNIOR, record=record)
        coded += [r.slug for r in made.rounds if r.kind is Kind.CODING]
        hunted = [r.slug for r in made.rounds if r.kind is Kind.HUNT]
        assert not {f"kata:{slug}" for slug in (*coded, *hunted)} & fresh
        assert "lora-a" not in {ask.id for r in made.rounds for ask in r.asks}
    others = [coded.count(slug) for slug in slugs if slug != due]
    assert coded.count(due) > 1.5 * max(others)


def test_nothing_left_to_code_is_said(clone: Path) -> None:
    """When every kata has just been solved there is a note, and no coding."""
    fresh = frozenset(f"kata:{slug}" for slug in catalog.slugs())
    made = sample(clone, seed=1, minutes=45, record=Record(fresh=fresh))
    assert {r.kind for r in made.rounds} == {Kind.WARMUP, Kind.DEBRIEF}
    assert "No kata to code" in made.notes[0]
    assert sum(r.minutes for r in made.rounds) == 45


def test_focus_and_level(clone: Path) -> None:
    """The focus comes first where it fits, and is said where it does not; levels mix."""
    focused = sample(clone, seed=1, minutes=90, focus="quantization")
    assert all(
        catalog.card(r.slug).track == "quantization"
        for r in focused.rounds
        if r.kind is Kind.CODING and r.slug
    )
    assert not focused.notes
    short = sample(clone, seed=1, minutes=15, focus="quantization")
    assert "quantization" in short.notes[0]

    def hard(level: Grade) -> int:
        made = [sample(clone, seed=seed, minutes=60, level=level) for seed in range(30)]
        slugs = [r.slug for p in made for r in p.rounds if r.kind is Kind.CODING and r.slug]
        return sum(catalog.card(slug).difficulty == "easy" for slug in slugs)

    assert hard(Grade.JUNIOR) > hard(Grade.SENIOR) > hard(Grade.STAFF)
    digs = {
        level: sum(
            ask.followup is not None
            for r in sample(clone, seed=1, minutes=45, level=level).rounds
            for ask in r.asks
        )
        for level in Grade
    }
    assert digs[Grade.JUNIOR] < digs[Grade.SENIOR]


def test_a_track_without_katas_is_said(clone: Path) -> None:
    """It is not the minutes that keep such a track out."""
    cards = [card for card in catalog.cards() if card.track != "serving"]
    questions = bank.load(clone / "questions")
    made = setter.paper(Record(), cards, questions, seed=1, minutes=45, focus="serving")
    assert made.notes == ("No kata of the track serving is there yet; another track's is taken.",)


def test_an_outline_promises_no_bug_without_a_hunt(clone: Path) -> None:
    """The debrief of a short mock has no bug to tell of."""
    for minutes in (15, 45):
        made = sample(clone, seed=1, minutes=minutes)
        hunted = any(r.kind is Kind.HUNT for r in made.rounds)
        text = "\n".join(pages.outline(made, 80, False))
        assert hunted == ("what the bug was" in text) == (minutes == 45)


def test_the_clock_line_says_the_most_that_fits() -> None:
    """Round, time left and last grading are there at 60 columns; the whole time where it fits."""
    now = pages.Status("coding · build_lora_adapter_model", 2, 5, 900, 2400, "last: all pass")
    assert pages.status(now, 59) == "2/5 coding · 15:00 left · last: all pass · whole 40:00 left"
    assert pages.status(now, 79) == (
        "2/5 coding · build_lora_adapter_model · 15:00 left · last: all pass"
    )
    assert pages.status(now, 12) == "2/5 coding"


def test_pages_fit_sixty_columns(clone: Path) -> None:
    """The outline, the head of a round gone on with, and what is said at its end."""
    for seed in range(4):
        made = sample(clone, seed=seed, minutes=120, focus="quantization")
        lines = pages.outline(made, 60, False)
        for place, round in enumerate(made.rounds, 1):
            lines += pages.heading(round, place, 9, 1234, True, 60, False)
            lines += pages.ended(round, 1999, 1234, 60)
        assert max(map(len, lines)) <= 60


def test_follow_ups_are_on_what_was_written(clone: Path) -> None:
    """After each coding come questions that its kata drills."""
    made = sample(clone, seed=5, minutes=45)
    after = made.rounds[2]
    assert after.kind is Kind.FOLLOWUPS
    assert [ask.id for ask in after.asks] == ["lora-a"] * 3
    assert [ask.followup for ask in after.asks] == [None, 0, 1]


def test_follow_ups_are_rather_specific(clone: Path) -> None:
    """A question on all katas comes, even when it is due, after those on the one just written."""
    own = [{**question(f"own-{n}", "lora"), "katas": [s]} for n, s in enumerate(catalog.slugs())]
    (clone / "questions" / "lora.yaml").write_text(json.dumps([question("all", "lora"), *own]))
    record = Record(due=frozenset({"question:all"}))
    for seed in range(20):
        made = sample(clone, seed=seed, minutes=60, record=record)
        slug, asks = made.rounds[1].slug, made.rounds[2].asks
        assert slug is not None
        specific = f"own-{catalog.slugs().index(slug)}"
        assert [ask.id for ask in asks if ask.followup is None] == [specific, "all"]


def test_a_paper_survives_its_storing(clone: Path) -> None:
    """What is decoded is what was encoded; numbers are filled in."""
    made = sample(clone, seed=3, minutes=60)
    assert paper.decode(paper.encode(made)) == made
    asks = [ask for r in made.rounds for ask in r.asks if ask.numeric]
    assert asks
    assert all("[[" not in ask.prompt for ask in asks)


def test_weights_order_candidates() -> None:
    """A weight of 0 is left out; heavy candidates mostly come first."""
    weights = {"a": 0.0, "b": 1.0, "c": 9.0}
    orders = [choice.shuffled(weights, seed, str, weights.__getitem__) for seed in range(200)]
    assert all("a" not in order for order in orders)
    assert 150 < sum(order[0] == "c" for order in orders) < 200


# Time and state


def test_the_keeper_stops_and_never_runs_back() -> None:
    """Pauses do not count; a clock set back counts as no time."""
    now = [100.0]
    keeper = timing.Keeper(30.0, lambda: now[0])
    assert keeper.elapsed() == 30
    keeper.start()
    now[0] = 110
    assert keeper.elapsed() == 40
    now[0] = 50
    assert keeper.elapsed() == 40
    now[0] = 55
    keeper.stop()
    now[0] = 500
    assert keeper.elapsed() == 45


def test_warnings() -> None:
    """At five minutes, at one, and when time is up; each once, overtaken ones left out."""
    assert timing.due_warning(10, 299, ()) is None
    assert timing.due_warning(10, 300, ()) == 5
    assert timing.due_warning(10, 300, {5}) is None
    assert timing.due_warning(10, 540, {5}) == 1
    assert timing.due_warning(10, 700, {5}) == 0
    assert timing.due_warning(10, 700, {5, 1, 0}) is None
    assert timing.due_warning(4, 0, ()) is None
    assert timing.due_warning(4, 180, ()) == 1
    assert timing.over_s(10, 660) == 60
    assert timing.over_s(10, 590) == 0


def test_state_is_a_fold_over_events(clone: Path) -> None:
    """Rounds, answers, best grading and pauses come from the events alone."""
    made = sample(clone, seed=3, minutes=45)
    core = Graded(round=1, by="save", passed=False, level=Level.CORE, parts={"shape": (2, 2)})
    none = replace_struct(core, level=Level.NONE, parts={"shape": (1, 2)})
    happened: list[tuple[float, Event]] = [
        (0.0, Began(round=0)),
        (9.0, Typed(round=0, ask=0, text="a")),
        (20.0, Answered(round=0, ask=0, seconds=20.0, text="a")),
        (30.0, Ended(round=0)),
        (30.0, Began(round=1)),
        (90.0, core),
        (95.0, Paused(reason="tea")),
        (95.0, Resumed(away_s=60.0)),
        (100.0, none),
    ]
    state = State.of(made, happened)
    assert state.current == 1
    assert state.rounds[0].used_s(state.clock_s) == 30
    assert state.rounds[1].used_s(130.0) == 100
    assert state.rounds[1].best == core
    assert state.rounds[1].last == none
    assert [at for at, _ in state.rounds[1].gradings] == [60, 70]
    assert state.breaks == [Break(95.0, "tea", 60.0)]
    assert not state.paused


def replace_struct(event: S, **changes: Any) -> S:
    return msgspec.structs.replace(event, **changes)


# Sittings


def test_an_edited_question_is_gone_on_with(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that was typed before the question was edited, and no longer fits, is an answer
    that was not computed: the sitting goes on."""
    monkeypatch.setenv("KATA_HOME", str(tmp_path))
    (asked,) = (q for q in bank.load(clone / "questions") if q.numeric is not None)
    monkeypatch.setattr(bank, "question", lambda id: asked)
    ask = Ask(id=asked.id, topic=asked.topic, prompt="?", answer="!", numeric=True)
    rounds = (Round(kind=Kind.WARMUP, minutes=15, asks=(ask,)),)
    made = Paper(seed=1, minutes=15, level=Grade.SENIOR, focus=None, rounds=rounds)
    sitting = sittings.Sitting(sittings.begin(made, datetime(2026, 3, 2, tzinfo=UTC)))
    sitting.start()
    sitting.enter()
    sitting.write("8 parameters")
    assert asked.numeric is not None
    bytes_ = replace_struct(asked.numeric, unit="bytes")
    monkeypatch.setattr(bank, "question", lambda id: replace_struct(asked, numeric=bytes_))
    sitting.answer()
    assert sitting.state.rounds[0].answers[0].text == "8 parameters"
    assert sitting.state.rounds[0].answers[0].correct is None


def test_plan_shows_the_outline_and_gives_nothing_away(world: World, tmp_path: Path) -> None:
    """--plan, --list, --report and --resume import no torch; the outline holds no question."""
    (tmp_path / "torch.py").write_text("raise RuntimeError('torch was imported')\n")
    path = {"PYTHONPATH": f"{tmp_path}"}
    first = world.kata("mock", "--plan", "--seed", "7", **path)
    assert first.returncode == 0, first.stderr
    assert first.stdout == world.kata("mock", "--plan", "--seed", "7", **path).stdout
    assert "What of" not in first.stdout
    made = sample(world.clone, seed=7, minutes=45)
    assert all(r.bug not in first.stdout for r in made.rounds if r.bug)
    assert "No mock interview yet" in world.kata("mock", "--list", **path).stdout
    assert world.kata("mock", "--report", "1", **path).returncode == 2
    assert world.kata("mock", "--resume", **path).returncode == 2
    assert world.kata("mock", "--minutes", "14", **path).returncode == 2
    assert world.kata("mock", "--minutes", "121", **path).returncode == 2
    assert world.kata("mock", "--focus", "colour", **path).returncode == 2
    assert world.kata("mock", "--plan", "--list", **path).returncode == 2
    assert not (world.home / "progress.db").exists()


def test_a_whole_mock_with_pause_kill_and_resume(world: World, tmp_path: Path) -> None:
    """From the first question to the report: time, pauses, saves, hints, hunt, ratings."""
    outline = json.loads(world.kata("mock", "--plan", "--json", "--seed", "7").stdout)
    coded, hunted = (
        next(r["slug"] for r in outline["rounds"] if r["kind"] == kind)
        for kind in ("coding", "bug hunt")
    )
    folder = world.home / "interviews" / "1"

    # Warm-up: an answer in two lines with a pause in between, a number, one said aloud.
    sitting = world.sit("--seed", "7")
    page = sitting.until("Your files are in", "Round 1 of 5", "[1/5 warm-up · 6:00 left")
    assert str(folder) in page
    made = sample(world.clone, seed=7, minutes=45)
    assert [r.slug for r in made.rounds if r.slug] == [coded, hunted]
    places = {ask.id: place for place, ask in enumerate(made.rounds[0].asks)}
    assert len(places) == 3
    for id in sorted(places, key=lambda id: places[id]):
        sitting.until("left")
        if id == "rank-n":  # killed between the number and the rest
            sitting.type("many")
            sitting.until("holds no number", "left")
            sitting.type("2 * 4")
            verdict = sitting.until("Now the rest", "left")
            sitting.process.kill()
            sitting.process.wait()
            sitting = world.sit("--resume")
            page = sitting.until("So far:", "2 * 4", "Now the rest", "left")
            assert "First the number alone" not in page
            assert ("That is right." in verdict) == ("That is right." in page)
            assert ("That is not right." in verdict) == ("That is not right." in page)
            sitting.type("both factors", "")
        else:
            sitting.type("one line")
            sitting.until("left")
            world.set_clock(60)
            sitting.type("/p tea")
            sitting.until("Paused: tea", "PAUSED")
            world.set_clock(3600)  # an hour that does not count
            sitting.type("", "another line", "")
            world.set_clock(3600)

    # Coding: killed while it waits, an hour passes, and the time left is right.
    sitting.until("Round 2 of 5", f"coding · {coded}", "not graded")
    world.set_clock(3660)
    deadline = time.monotonic() + 30
    while not _beaten(world, 120.0):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    sitting.process.kill()
    sitting.process.wait()
    world.set_clock(7200)
    minutes = next(r["minutes"] for r in outline["rounds"] if r["kind"] == "coding")
    sitting = world.sit("--resume")
    sitting.until("Round 2 of 5", f"goes on, {minutes - 1}:00 left", "not graded")
    second = world.kata("mock", "--resume")
    assert second.returncode == 2
    assert "another window" in second.stderr

    sitting.type("h")
    sitting.until("Hint 1 of", "not graded")
    file = folder / f"{coded}.py"
    assert file.read_text() == (content.clone() / "katas" / f"{coded}.py").read_text()  # type: ignore[operator]
    # Every save is graded by itself: an exception, a known mistake, the solution.
    stub, answer = file.read_text(), content.solution(coded).read_text()
    file.write_text(stub.replace("NotImplementedError", 'ZeroDivisionError("not yet")'))
    sitting.until("Graded at 1:00", "ZeroDivisionError: not yet", "last: core 0/")
    bug = catalog.entry(coded).bugs[0]
    file.write_text(stubs.strip_markers(catalog.planted(coded, bug, answer), ""))
    page = sitting.until("Graded at 1:00", "last: ")
    run = world.kata("run", coded, "--file", str(file), "--seed", "1").stdout
    findings = run.split("\n\ngraded in ")[0].splitlines()[1:]
    wordy = [line for line in findings if not any(c.isdigit() for c in line)]  # others are drawn
    assert len(wordy) > 3
    assert [line for line in wordy if line not in page] == []
    assert " ".join(bug.cause.split())[:30] in page
    file.write_text(answer)
    sitting.until("Everything passes", "last: all pass")
    sitting.type("n")

    # Follow-ups on it, then the hunt: diagnosis before the first grading.
    sitting.until("Round 3 of 5", "What of lora-a?", "left")
    sitting.type("")
    sitting.until("Follow-up 2 of 3")
    sitting.type("because", "")
    sitting.until("Follow-up 3 of 3")
    sitting.type("/n")
    sitting.until("Round 4 of 5", f"bug hunt · {hunted}", "not graded")
    prey = folder / f"hunt_{hunted}.py"
    prey.write_text(hunt.reference(hunted))
    sitting.type("", "the scale")
    sitting.until("Everything passes", "all pass")
    world.set_clock(7200 + 3600)  # far over time: said, not cut
    sitting.until("Time is up")
    sitting.type("n")

    # Debrief.
    page = sitting.until("Round 5 of 5", "A good answer", "left")
    sitting.type("4")
    sitting.until("numbers from 1 to 3 are wanted")
    sitting.type("1,3", "2-3", "all", "", "y", "", "y")
    sitting.process.stdin.close()  # type: ignore[union-attr]
    page = sitting.until("Verdict:", "Drill next", "report.html")
    assert sitting.process.wait(60) == 0
    assert "Paused: tea at " in page
    assert "Interrupted, as the program was killed, and not counted: at " in page
    assert f"Your code at the end · coding · {coded}" in page

    report = json.loads(world.kata("mock", "--report", "1", "--json").stdout)
    rounds = {r["kind"]: r for r in report["rounds"]}
    assert report["finished"]
    assert rounds["coding"]["level"] == "complete"
    assert rounds["coding"]["hints"] == 1
    assert rounds["coding"]["used_s"] == 60
    assert bug.title in rounds["coding"]["mended"]
    assert rounds["coding"]["mended"] == rounds["coding"]["bugs"]
    assert rounds["coding"]["code"] == answer
    assert rounds["coding"]["reference"] == stubs.solution(coded)
    breaks = [(b["reason"], b["away_s"]) for b in report["breaks"] if not b["killed"]]
    assert ("tea", 3540) in breaks
    assert max(b["away_s"] for b in report["breaks"] if b["killed"]) == 3540
    with world.store() as store:
        touched = store.tallies.touched(datetime(2026, 3, 2, 8, tzinfo=UTC))
    assert f"kata:{coded}" in touched
    assert rounds["bug hunt"]["right"]
    assert rounds["bug hunt"]["over_s"] > 3000
    assert rounds["warm-up"]["used_s"] == 60 if places["rank-n"] else True
    assert [a["share"] for a in rounds["follow-ups"]["answers"]] == [0.0, 1.0, 0.0]
    with world.store() as store:
        keys = {review.key for review in store.memory.reviews()}
        given = [a for a in store.memory.answers() if a.interview == 1]
    assert {f"kata:{coded}", f"bug:{hunted}", "question:rank-n"} <= keys
    assert "one line\nanother line" in [a.text for a in given]
    (numeric,) = (a for a in given if a.key == "question:rank-n")
    assert numeric.text == "2 * 4\nboth factors"
    assert numeric.correct == ("That is right." in verdict)
    assert list((tmp_path / "work").iterdir()) == []
    assert "1  2026-03-02" in world.kata("mock", "--list").stdout
    assert f"kata:{coded}" not in _wanted(world)
    versions = json.loads(world.kata("history", coded, "--json").stdout)["versions"]
    assert [v["reason"] for v in versions] == ["mock"] * 3
    listed = json.loads(world.kata("list", "--json").stdout)["katas"]
    standing = next(kata for kata in listed if kata["slug"] == coded)
    assert standing["level"] == "complete"
    assert standing["best_seconds"] is None  # against the interview's clock, not a round's
    stats = json.loads(world.kata("stats", "--json").stdout)
    assert stats["attempts"] == 3


def _beaten(world: World, clock_s: float) -> bool:
    with world.store() as store:
        return store.interviews.events(1)[-1][0] >= clock_s


def _wanted(world: World) -> set[str]:
    outline = json.loads(world.kata("mock", "--plan", "--json", "--minutes", "90").stdout)
    return {f"kata:{r['slug']}" for r in outline["rounds"] if r["kind"] == "coding"}


def test_the_end_of_input_pauses(world: World) -> None:
    """Without input left it is exit 2, and goes on from there with --resume."""
    sitting = world.sit("--seed", "1", "--minutes", "15")
    sitting.until("Round 1", "left")
    sitting.type("a line that stays")
    code, _ = sitting.end()
    assert code == 2
    with world.store() as store:
        kinds = [kind for _, kind, _ in store.interviews.events(1)]
    assert kinds[-1] == "paused"
    again = world.sit("--resume")
    again.until("So far:", "a line that stays")
    again.process.send_signal(signal.SIGINT)
    code, text = again.end()
    assert code == 130
    assert "nothing is lost" in text


def test_an_unfinished_mock_has_a_report_without_verdict(world: World) -> None:
    """--report of a paused mock says so."""
    sitting = world.sit("--seed", "1", "--minutes", "15")
    sitting.until("Round 1")
    sitting.end()
    done = world.kata("mock", "--report", "1")
    assert done.returncode == 0
    assert "unfinished" in done.stdout


def test_a_full_folder_is_a_plain_message(world: World) -> None:
    """A data folder that cannot be made ends with one line."""
    world.home.write_text("a file in the way")
    done = world.kata("mock", "--seed", "1")
    assert done.returncode == 3
    assert "data folder" in done.stderr
    assert "Traceback" not in done.stderr


@contextlib.contextmanager
def on_a_terminal(world: World) -> Iterator[tuple[int, Callable[[str], str]]]:
    """A short mock on a terminal of 80 columns: where to type, and how to wait for a text (which
    gives all that was said so far)."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(world.clone)
        kept = {**world.environment, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
        run = [sys.executable, "-m", "grader", "mock", "--seed", "1", "--minutes", "15"]
        os.execve(sys.executable, run, kept)
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    seen = b""

    def until(text: str) -> str:
        nonlocal seen
        deadline = time.monotonic() + 60
        while text.encode() not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 65536)
        return seen.decode(errors="replace")

    try:
        yield terminal, until
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def test_the_clock_line_lives_on_a_terminal(world: World) -> None:
    """On a terminal the last row shows round and time left, while a line is being typed."""
    with on_a_terminal(world) as (terminal, until):
        until("\x1b[1;23r")
        until("2:00 left")
        os.write(terminal, b"half a li")
        world.set_clock(70)
        until("0:50 left")
        until("half a li")
        world.set_clock(135)
        until("0:15 OVER")
        os.write(terminal, b"ne\r")
        until("Time is up")
        until("… ")  # the line before is stored
        os.write(terminal, b"\x03")
        until("\x1b[r")
        until("nothing is lost")
    with world.store() as store:
        texts = [data["text"] for _, kind, data in store.interviews.events(1) if kind == "typed"]
    assert texts[:1] == ["half a line"]


def test_a_warning_is_not_carried_into_the_next_round(world: World) -> None:
    """What became due while a line was typed is left out where the line ends the round."""
    with on_a_terminal(world) as (terminal, until):
        until("2:00 left")
        world.set_clock(70)
        until("0:50 left")
        os.write(terminal, b"/n\r")
        until("Enter grades")
        until("9:00 left")
        os.write(terminal, b"\r")  # grades: what was due by then has been said
        assert "in this round" not in until("Graded at")


def test_the_clock_goes_on_while_a_file_takes_its_time(world: World) -> None:
    """A grading that lasts is said, and the time left goes on; Ctrl-C ends it."""
    with on_a_terminal(world) as (terminal, until):
        until("2:00 left")
        os.write(terminal, b"/n\r")
        until("Enter grades")
        (file,) = (world.home / "interviews" / "1").glob("*.py")
        file.write_text("while True:\n    pass\n")
        until("grading …")
        world.set_clock(60)
        until("8:00 left · grading …")
        os.write(terminal, b"\x03")
        until("nothing is lost")


def test_ctrl_c_and_a_tick_at_once(world: World) -> None:
    """Both signals may wait for a process that was busy; that is still a pause."""
    with on_a_terminal(world) as (terminal, until):
        until("2:00 left")
        until("> ")
        process = os.tcgetpgrp(terminal)
        os.kill(process, signal.SIGSTOP)
        time.sleep(0.5)  # a tick falls due
        os.kill(process, signal.SIGINT)
        os.kill(process, signal.SIGCONT)
        until("nothing is lost")


# What is unfinished


def test_an_unfinished_mock_is_offered_first(world: World) -> None:
    """On a terminal: to go on with, to abandon, or to leave as it is for a new one."""
    sitting = world.sit("--seed", "1", "--minutes", "15")
    sitting.until("Round 1 of", "left")
    sitting.type("a line that stays")
    sitting.end()
    run = [sys.executable, "-m", "grader", "mock", "--seed", "2", "--minutes", "15"]

    def at_desk() -> Terminal:
        return Terminal(run, world.clone, world.environment)

    desk = at_desk()
    page = desk.until("Enter: go on): ")
    assert "Mock 1 of 2026-03-02" in page
    assert "is unfinished: round 1 of" in page
    desk.type("x\r")
    desk.until("`x` is none of g, a, n, q.")
    desk.type("\r")
    desk.until("goes on, 2:00 left", "a line that stays", "… ")
    desk.type("q is a letter\r")  # in the middle of an answer it is none of the keys
    desk.until("… ")
    desk.type("/?\r")
    desk.until("leave (also Ctrl-D); what you gave is stored", "… ")
    desk.type("/q\r")
    desk.until("Mock 1 is paused, nothing is lost.")
    assert desk.end() == 0
    desk = at_desk()
    desk.until("Enter: go on): ")
    desk.type("q\r")
    assert desk.end() == 0
    desk = at_desk()
    desk.until("Enter: go on): ")
    desk.type("n\r")
    desk.until("Mock 2. Your files are in", "> ")
    desk.type("q\r")
    desk.until("Mock 2 is paused, nothing is lost.")
    assert desk.end() == 0
    desk = at_desk()
    assert "Mock 2 of" in desk.until("Enter: go on): ")
    desk.type("a\r")
    page = desk.until("Mock 1 of", "Enter: go on): ")  # the one before is offered, too
    assert "Mock 2 is abandoned; what you gave in it stays stored." in page
    desk.type("a\r")
    desk.until("Mock 1 is abandoned", "Mock 3. Your files are in", "> ")
    desk.type("q\r")
    assert desk.end() == 0

    table = world.kata("mock", "--list").stdout
    standings = [line.split("senior")[1].split(maxsplit=1)[1] for line in table.splitlines()[1:4]]
    assert standings[0].startswith("abandoned (round 1/")
    assert standings[1].startswith("abandoned (round 1/")
    assert standings[2].startswith("unfinished (round 1/")
    mocks = json.loads(world.kata("mock", "--list", "--json").stdout)["mocks"]
    assert [(mock["finished"], mock["abandoned"]) for mock in mocks] == [
        *[(False, True)] * 2,
        (False, False),
    ]
    report = world.kata("mock", "--report", "1").stdout
    assert "Verdict: abandoned in round 1 of" in report
    assert "Paused: there is no input left" not in report
    assert "abandoned in round 1 of" in (world.home / "interviews/1/report.html").read_text()
    with world.store() as store:
        events = store.interviews.events(1)
    typed = [data["text"] for _, kind, data in events if kind == "typed"]
    assert typed == ["a line that stays", "q is a letter"]


def test_abandoning_by_number(world: World) -> None:
    """Ends one for good; what is over, held in another window or not there is said in a line."""
    held = world.sit("--seed", "1", "--minutes", "15")
    held.until("Round 1 of", "left")
    refused = world.kata("mock", "--abandon", "1")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: Mock 1 goes on in another window.\n",
    )
    held.type("said before it was given up", "")
    held.until("left")
    held.end()
    done = world.kata("mock", "--abandon", "1")
    assert done.returncode == 0, done.stderr
    assert "Mock 1 is abandoned; what you gave in it stays stored." in done.stdout
    assert "Written:" in done.stdout
    again = world.kata("mock", "--abandon", "1")
    assert again.returncode == 2
    assert again.stderr == "error: Mock 1 is over: `kata mock --report 1` shows it.\n"
    assert world.kata("mock", "--abandon", "2").returncode == 2
    assert world.kata("mock", "--abandon", "1", "--list").returncode == 2
    assert "No mock is unfinished." in world.kata("mock", "--resume").stderr
    report = world.kata("mock", "--report", "1").stdout
    assert "said before it was given up" in (world.home / "interviews/1/report.md").read_text()
    assert "A good answer" in report
    with world.store() as store:
        assert [a.text for a in store.memory.answers()] == ["said before it was given up"]


def test_the_setter_asks_what_it_is_handed(clone: Path) -> None:
    """Of the whole bank a paper takes questions of those that are handed in, and no others."""
    handed = [question for question in bank.load() if question.topic in ("lora", "serving")]
    for seed in range(5):
        made = setter.paper(Record(), catalog.cards(), handed, seed=seed, minutes=90)
        asked = {ask.id for round in made.rounds for ask in round.asks}
        assert asked <= {question.id for question in handed}
        assert len(asked) > 5
