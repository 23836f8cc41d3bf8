"""`kata import`: the records of two machines, joined."""

import json
import random
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest

from grader.exam.verdict import Check, Outcome, Part, Verdict
from grader.practice import repetition
from grader.recall import joined
from grader.recall.export import everything
from grader.store import Store
from grader.store.attempts import Reason, Snapshot
from grader.store.memory import Rating
from grader.store.records import DERIVED, TABLES

Kata = Callable[..., "subprocess.CompletedProcess[str]"]

DATABASES = Path(__file__).parent / "databases"
NOW = datetime(2026, 3, 7, 9, tzinfo=UTC)
SLUGS = ("lora_linear", "ia3_linear")
QUESTIONS = tuple(f"question:{name}" for name in "abc")
PAPER = {
    "seed": 3,
    "minutes": 15,
    "level": "senior",
    "focus": None,
    "rounds": [{"kind": "coding", "minutes": 8, "par": 8, "slug": "lora_linear"}],
    "notes": [],
}
check_mock = import_module("grader.cli.import")._check_mock


class Learner:
    """Does at random what can be done, through the sections of one machine's store. Its clock is
    set back now and then."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.draw, self.now = store, random.Random(seed), NOW
        self.sitting = store.memory.begin_quiz({"limit": None}, NOW)

    def act(self, times: int) -> None:
        for _ in range(times):
            self.now += timedelta(minutes=self.draw.choice([0, 1, 7, 90, 2000, -40]))
            often: list[Callable[[], object]] = [self.write, self.ask, self.mock]
            steps = [*often, *often, self.start, self.hint, self.go_on, self.undo, self.plan]
            self.draw.choice(steps)()

    def start(self) -> None:
        self.store.attempts.begin_round(self.draw.choice(SLUGS), self.now)

    def write(self) -> Snapshot:
        slug = self.draw.choice(SLUGS)
        source = self.draw.choice([b"", b"x = 1\n", b"\xff\xfe", b"# \xc3\xbc\n", b"y = 2"])
        kept = self.store.attempts.keep(slug, source, Reason.RUN, self.now)
        outcome = self.draw.choice([Outcome.PASSED, Outcome.FAILED])
        checks = (Check(name="rule", part=Part.SHAPE, outcome=outcome),)
        verdict = Verdict(slug=slug, seed=7, checks=checks, seconds=0.5)
        self.store.attempts.record(verdict, kept, self.now, worked_s=self.draw.choice([None, 3.5]))
        self.store.work.add(f"kata:{slug}", self.now, 60.0)
        if outcome is Outcome.PASSED:
            repetition.rate(self.store.memory, f"kata:{slug}", self.rating(), self.now)
        older = self.draw.choice(self.store.attempts.snapshots(slug))
        self.store.attempts.untime_round(slug, older)
        return kept

    def rating(self) -> Rating:
        return self.draw.choice(list(Rating))

    def hint(self) -> None:
        slug = self.draw.choice(SLUGS)
        self.store.attempts.next_hint(slug, 3, self.now)
        self.store.attempts.saw_solution(slug, self.now)

    def ask(self) -> None:
        memory, key = self.store.memory, self.draw.choice(QUESTIONS)
        id = memory.begin_answer(key, "one", self.now, draw=2, quiz=self.sitting)
        if self.draw.random() < 0.8:
            self.finish(id, key)

    def go_on(self) -> None:
        """What is unfinished, whoever began it, goes on in a new quiz."""
        memory = self.store.memory
        memory.end_quiz(self.sitting, self.now)
        self.sitting = memory.begin_quiz({"limit": 3}, self.now)
        for answer in memory.take_over(self.sitting, self.now - timedelta(days=1)):
            if not answer.finished:
                self.finish(answer.id, answer.key)

    def finish(self, id: int, key: str) -> None:
        memory = self.store.memory
        memory.continue_answer(id, "one\ntwo" + "!" * self.draw.randrange(3))
        memory.finish_answer(id, self.now, 20.0)
        if self.draw.random() < 0.8:
            memory.tick(id, tuple(sorted(self.draw.sample(range(4), 2))))
            repetition.rate(memory, key, self.rating(), self.now, id)

    def undo(self) -> None:
        repetition.undo(self.store.memory)

    def mock(self) -> None:
        interviews = self.store.interviews
        open_ = [one for one in interviews.all() if one.ended is None]
        plan = json.dumps(PAPER)
        one = self.draw.choice(open_) if open_ else interviews.begin(plan, Path("m"), self.now)
        past = interviews.events(one.number)
        clock_s = (past[-1][0] if past else 0.0) + 5.0
        kind: str
        data: dict[str, Any] | None
        kind, data = self.draw.choice(
            [("began", {"round": 0}), ("beat", {}), ("ended", {"round": 0}), ("graded", None)]
        )
        if data is None:
            kept = self.store.attempts.keep("lora_linear", b"mock", Reason.MOCK, self.now)
            data = {"round": 0, "by": "enter", "passed": True, "level": "complete", "parts": {}}
            data["snapshot"] = kept.number
        interviews.append(one.number, kind, data, clock_s, self.now)
        if kind == "ended":
            interviews.end(one.number, self.now)

    def plan(self) -> None:
        plan = {"interview": "2026-03-20", "minutes_per_day": self.draw.randrange(5, 99)}
        self.store.settings.set("plan", json.dumps(plan))
        self.store.settings.set("workspace", f"/home/{self.draw.randrange(1000)}")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Store]]:
    """Three machines' stores."""
    stores = [Store(tmp_path / name / "progress.db", create=True) for name in "abc"]
    yield stores
    for store in stores:
        store.close()


def exported(store: Store) -> bytes:
    return msgspec.json.encode(everything(store, NOW))


def carry(source: Store, target: Store) -> joined.Joined:
    """Export on one machine, import on the other."""
    return joined.join(target, joined.read(exported(source)), check_mock, Path("mocks"))


def state(store: Store) -> dict[str, Any]:
    """What both machines must agree on: the record and the cards, and what pages show of it."""
    return {
        "record": store.records.all(),
        "cards": store.memory.cards(),
        "ratings": [(r.key, r.at, r.rating, r.before) for r in store.memory.reviews()],
        "answers": [(a.key, a.text, a.rating, a.finished) for a in store.memory.answers()],
        "standings": store.attempts.standings(),
        "solves": store.attempts.solves(),
        "sources": [[s.source for s in store.attempts.snapshots(slug)] for slug in SLUGS],
        "last": [store.attempts.last_verdict(slug) for slug in SLUGS],
        "mocks": sorted(
            (mock.at, mock.ended is None, [event[:2] for event in store.interviews.events(n)])
            for mock in store.interviews.all()
            for n in [mock.number]
        ),
        "begun": [store.attempts.begun(slug) for slug in SLUGS],
    }


def own(store: Store) -> str:
    """All that is in the file, this machine's numbers and folders with it."""
    tables = [*TABLES, *DERIVED]
    rows = {table: store._database.rows(f"SELECT * FROM {table}") for table in tables}
    return repr({table: [tuple(row) for row in found] for table, found in rows.items()})


@pytest.mark.parametrize("seed", range(6))
def test_whoever_imports_first_both_end_alike(machines: list[Store], seed: int) -> None:
    """Histories that began apart, or as copies of one another, and went on after an import:
    nothing of either is lost, both agree, and importing again changes nothing."""
    one, two, three = machines
    learners = [Learner(store, 10 * seed + n) for n, store in enumerate(machines)]
    for learner in learners:
        learner.act(25)
    if seed % 2:
        carry(one, two)
        for learner in learners:
            learner.act(25)
    rows = {
        table: {row[TABLES[table].by] for row in found}
        for table, found in one.records.all().items()
    }
    carry(one, two)
    carry(two, one)
    assert state(one) == state(two)
    for table, found in rows.items():
        assert found <= {row[TABLES[table].by] for row in two.records.all()[table]}, table
    before = own(one), own(two)
    for source, target in ((two, one), (one, two), (one, one)):
        done = carry(source, target)
        assert (done.new.total(), done.changed, done.backup) == (0, 0, None)
    assert (own(one), own(two)) == before
    # A third one, by two ways.
    carry(three, one)
    carry(two, three)
    carry(three, two)
    assert state(one) == state(two) == state(three)
    assert len(own(one)) > 10_000
    for learner in learners:  # and all go on from there
        learner.act(5)


def test_numbers_and_folders_stay_each_machines_own(machines: list[Store]) -> None:
    """Versions, attempts and mocks that were numbered keep their numbers; what comes in is
    numbered on. An event of a mock still names the version that it graded."""
    one, two, _ = machines
    for store, text in ((one, b"mine"), (two, b"theirs")):
        begun = store.interviews.begin(json.dumps(PAPER), Path("/home") / text.decode(), NOW)
        kept = store.attempts.keep("lora_linear", text, Reason.MOCK, NOW)
        data = {"round": 0, "by": "enter", "passed": True, "level": "complete", "parts": {}}
        data["snapshot"] = kept.number
        store.interviews.append(begun.number, "graded", data, 5.0, NOW)
        store.settings.set("workspace", text.decode())
        store.settings.set("hunt:lora_linear", text.decode())
    done = carry(two, one)
    assert done.new["interviews"] == done.new["snapshots"] == 1
    versions = {s.number: s.source for s in one.attempts.snapshots("lora_linear")}
    assert versions == {1: b"mine", 2: b"theirs"}
    mocks = one.interviews.all()
    assert [(m.number, m.folder) for m in mocks] == [
        (1, Path("/home/mine/1")),
        (2, Path("mocks/2")),
    ]
    graded = [one.interviews.events(m.number)[0][2]["snapshot"] for m in mocks]
    assert graded == [1, 2]
    assert one.settings.get("workspace") == one.settings.get("hunt:lora_linear") == "mine"


def test_a_rating_taken_back_elsewhere_is_taken_back_here(machines: list[Store]) -> None:
    """Cards follow from all ratings that stand, in the order in which they were given."""
    one, two, three = machines
    memory = one.memory
    for day, rating in enumerate((Rating.GOOD, Rating.EASY)):
        at = NOW + timedelta(days=3 * day)
        quiz = memory.begin_quiz({}, at)
        answer = memory.answer("question:a", "said", at, seconds=1, quiz=quiz)
        repetition.rate(memory, "question:a", rating, at, answer)
    carry(one, two)
    repetition.undo(one.memory)
    repetition.rate(two.memory, "question:a", Rating.AGAIN, NOW + timedelta(days=1))
    carry(two, one)
    carry(one, two)
    for day, rating in ((0, Rating.GOOD), (1, Rating.AGAIN)):
        repetition.rate(three.memory, "question:a", rating, NOW + timedelta(days=day))
    wanted = three.memory.card("question:a")
    assert wanted is not None
    # As if given in the order of time, though that of day 1 came in last: on `one` it stands
    # after that of day 3 was taken back.
    assert one.memory.card("question:a") == two.memory.card("question:a") == wanted


def test_what_has_gone_further_elsewhere_goes_on_here(machines: list[Store]) -> None:
    """A round whose clock was stopped, a quiz and a mock that ended, an answer that was finished,
    a plan that was changed; what is behind elsewhere changes nothing."""
    one, two, _ = machines
    kept = one.attempts.keep("lora_linear", b"before", Reason.RUN, NOW - timedelta(days=1))
    one.attempts.begin_round("lora_linear", NOW)
    quiz = one.memory.begin_quiz({}, NOW)
    one.memory.begin_answer("question:a", "so far", NOW, draw=1, quiz=quiz)
    mock = one.interviews.begin(json.dumps(PAPER), Path("m"), NOW)
    one.settings.set("plan", "")
    carry(one, two)
    (answer,) = two.memory.answers()
    assert two.attempts.untime_round("lora_linear", kept)
    two.memory.continue_answer(answer.id, "so far,\nand so on")
    two.memory.finish_answer(answer.id, NOW + timedelta(minutes=1), 60.0)
    two.memory.end_quiz(quiz, NOW)
    two.interviews.end(mock.number, NOW)
    behind = state(two)["record"]
    assert carry(one, two).changed == 0
    assert state(two)["record"] == behind
    assert carry(two, one).changed == 4
    assert not one.attempts.untime_round("lora_linear", kept)  # it is no more
    assert [a.text for a in one.memory.answers()] == ["so far,\nand so on"]
    assert one.interviews.all()[0].ended == NOW
    assert state(one) == state(two)


def test_every_table_is_joined_or_follows_from_others(tmp_path: Path) -> None:
    """A new table is not forgotten."""
    Store(tmp_path / "progress.db", create=True).close()
    with closing(sqlite3.connect(tmp_path / "progress.db")) as database:
        found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert {name for (name,) in found} == {*TABLES, *DERIVED}


@pytest.mark.parametrize("version", ["0002", "0003"])
def test_copies_made_before_rows_had_names_are_one(tmp_path: Path, version: str) -> None:
    """Two machines that began as copies of one file, with an older kata, agree on its rows."""
    for name in "ab":
        (tmp_path / name).mkdir()
        with closing(sqlite3.connect(tmp_path / name / "progress.db")) as database:
            dump = (DATABASES / f"{version}.sql").read_text(encoding="utf-8")
            database.executescript(dump)
    with (
        Store(tmp_path / "a" / "progress.db", create=True) as one,
        Store(tmp_path / "b" / "progress.db", create=True) as two,
    ):
        before = own(two)
        done = carry(one, two)
        assert (done.new.total(), done.changed) == (0, 0)
        assert own(two) == before


# The command


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What `kata export json` writes of a learner's record."""
    file = tmp_path_factory.mktemp("elsewhere") / "progress.db"
    with Store(file, create=True) as store:
        Learner(store, 1).act(80)
        return exported(store)


@pytest.fixture
def export(history: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "other.json"
    path.write_bytes(history)
    return path


def test_the_command(kata: Kata, export: Path, tmp_path: Path) -> None:
    """To a machine with nothing, again, and to one with something: what came in is said, and how
    to undo it; the file of the export and all pages can be read."""
    done = kata("import", str(export))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"New from {export}: ")
    for text in ("attempts", "kept versions", "answers", "ratings", " and "):
        assert text in " ".join(done.stdout.split())
    assert "undoes" not in done.stdout
    again = kata("import", str(export))
    assert " ".join(again.stdout.split()) == f"All that {export} holds was here already."
    for command in ("list", "stats", "today", "history lora_linear", "mock --list"):
        assert kata(*command.split()).returncode == 0, command
    home = str(tmp_path / "third")
    assert kata("start", "ia3_linear", KATA_HOME=home).returncode == 0
    done = kata("import", str(export), KATA_HOME=home)
    assert done.returncode == 0, done.stderr
    name = done.stdout.split("`kata backup --restore ")[1].split("`")[0]
    assert kata("backup", "--restore", name, KATA_HOME=home).returncode == 0
    record = json.loads(kata("export", "json", KATA_HOME=home).stdout)["record"]
    assert record["attempts"] == []
    assert len(record["rounds"]) == 1


def _row(table: str, **values: Any) -> Callable[[dict[str, Any]], object]:
    """Spoils the first row of a table; a value `...` takes its field away."""

    def spoil(whole: dict[str, Any]) -> None:
        row = whole["record"][table][0]
        for name, value in values.items():
            row.pop(name) if value is ... else row.update({name: value})

    return spoil


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "newer": (lambda w: w.update(format=9), "a newer kata.\nUpdate this one first: pip install"),
    "newer schema": (lambda w: w.update(schema=99), "a newer kata.\nUpdate this one first"),
    "older": (
        lambda w: (w.update(format=1), w.pop("record")),
        "an older kata wrote it, which left out most.\nUpdate that one, then export anew there",
    ),
    "no export": (lambda w: w.clear(), "it is no export of kata: "),
    "no record": (lambda w: w.update(record=[]), "it is no export of kata: "),
    "strange table": (lambda w: w["record"].update(cats=[]), "does not know: cats."),
    "no row": (lambda w: w["record"].update(work=[7]), "work[0] is no object."),
    "strange field": (_row("work", cat=1), "work[0] has a field that this kata does not know: cat"),
    "missing": (_row("work", seconds=...), "work[0].seconds is missing."),
    "no name": (_row("work", uid=...), "work[0].uid is missing."),
    "odd name": (_row("work", uid="zzz"), "work[0].uid is not what belongs there: 'zzz'."),
    "type": (_row("work", seconds="3"), "work[0].seconds is not what belongs there: '3'."),
    "large": (_row("attempts", seed=2**70), "attempts[0].seed is not what belongs there"),
    "time": (_row("answers", at="today"), "answers[0].at is not what belongs there: 'today'."),
    "zone": (_row("answers", at="2026-03-01T09:30:00"), "answers[0].at is not what belongs"),
    "rating": (_row("reviews", rating=9), "reviews[0].rating is not what belongs there: 9."),
    "level": (_row("attempts", level="guru"), "attempts[0].level is not what belongs there"),
    "verdict": (_row("attempts", verdict="{}"), "attempts[0].verdict is not what belongs there"),
    "points": (_row("answers", points="{"), "answers[0].points is not what belongs there"),
    "source": (_row("snapshots", source="other"), "snapshots[0].source was changed"),
    "base64": (_row("snapshots", source={"base64": "?"}), "snapshots[0].source is not what"),
    "reference": (_row("attempts", snapshot="gone"), "attempts[0].snapshot is no row of snapshots"),
    "paper": (_row("interviews", plan="{}"), "interviews[0], the mock of 2026-"),
    "event": (_row("interview_events", kind="danced"), "interviews[0], the mock of 2026-"),
    "round": (_row("interview_events", data='{"round": 7}', kind="began"), "cannot be read."),
    "data": (_row("interview_events", data="[]"), "interview_events[0].data is not what belongs"),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_is_wrong_with_a_file_is_named(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """In two lines at most, and nothing is changed, whatever came before it in the file."""
    from click.testing import CliRunner

    from grader.errors import UsageFault

    whole = json.loads(export.read_text(encoding="utf-8"))
    spoil, said = WRONG[how]
    spoil(whole)
    export.write_text(json.dumps(whole), encoding="utf-8")
    monkeypatch.setenv("KATA_HOME", str(tmp_path / "home"))
    command = import_module("grader.cli.import").import_command
    for there in (False, True):
        if there:
            with Store.open(create=True) as store:
                Learner(store, 2).act(10)
                before = own(store)
        done = CliRunner().invoke(command, [str(export)])
        assert isinstance(done.exception, UsageFault), done.output
        text = str(done.exception)
        assert text.startswith(f"{export} cannot be imported, and nothing was changed: ")
        assert said in text
        assert len(text.splitlines()) <= 2
        if not there:
            assert not (tmp_path / "home").exists()
    with Store.open(create=False) as store:
        assert own(store) == before
        assert all(backup.by == "itself" for backup in store.backups())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not JSON", "it is no JSON: "),
        (b"", "it is no JSON: "),
        (b"\xff\xfe\x00", "it is no JSON: "),
        (b"[1, 2]", "it is no export of kata: "),
        (None, "cannot be read: No such file or directory."),
    ],
)
def test_what_is_no_export_is_told_in_plain_words(
    kata: Kata, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    done = kata("import", str(path))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()
