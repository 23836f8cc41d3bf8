"""The progress file: every version of its schema is still read, whole; and who may write to it.

`tests/databases/<version>.sql` is the dump of a file that the code of that version wrote, with rows
in each table. A new version gets one too; the ones before it never change.
"""

import ast
import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import grader
from grader.store import Store, StoreError
from grader.store.database import PROGRESS, Database
from grader.store.memory import Rating

Kata = Callable[..., "subprocess.CompletedProcess[str]"]

PACKAGE = Path(grader.__file__).parent
DATABASES = Path(__file__).parent / "databases"
VERSIONS = sorted(DATABASES.glob("*.sql"))
MOMENT = datetime(2026, 3, 7, 9, tzinfo=UTC)
NOW = {"KATA_CLOCK": "2026-03-07T09:00:00+00:00 x0", "TZ": "UTC"}


def _lay(dump: Path, home: Path) -> None:
    """Make the progress file that a dump was taken of."""
    home.mkdir()
    with sqlite3.connect(home / "progress.db") as database:
        database.executescript(dump.read_text(encoding="utf-8"))
    database.close()


def _schema(file: Path) -> tuple[int, set[str]]:
    """The version, and every statement of the schema, blanks aside."""
    with sqlite3.connect(file) as database:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        rows = database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    database.close()
    return version, {"".join(sql.split()) for (sql,) in rows}


def _told(kata: Kata, *command: str) -> Any:
    done = kata(*command, **NOW)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("dump", VERSIONS, ids=lambda dump: dump.stem)
def test_work_on_katas_is_read_from_every_version(kata: Kata, tmp_path: Path, dump: Path) -> None:
    """Versions, attempts, rounds, hints, solutions and settings; then the file has the schema of
    a new one."""
    _lay(dump, tmp_path / "home")
    history = _told(kata, "history", "lora_linear", "--json")
    assert [v["reason"] for v in history["versions"]][:3] == ["start", "run", "run"]
    assert [
        (a["number"], a["version"], a["part"], a["passed"], a["level"], a["checks_passed"])
        for a in history["attempts"]
    ][:3] == [
        (1, 2, None, False, "none", 1),
        (2, 3, "shape", True, "none", 2),
        (3, 3, None, True, "complete", 2),
    ]
    (failed,) = _told(kata, "history", "ia3_linear", "--json")["attempts"]
    assert (failed["version"], failed["checks"]) == (None, 0)

    stats = _told(kata, "stats", "--json")
    assert stats["days"]["2026-03-02"] == 3
    (lora, ia3) = stats["katas"]
    assert (lora["level"], lora["hints"], lora["solutions_seen"]) == ("complete", 2, 1)
    assert [(s["seconds"], s["hints"]) for s in lora["solves"]] == [(780.0, 2)]
    assert (ia3["attempts"], ia3["solves"]) == (1, [])
    assert kata("hint", "lora_linear").stdout.startswith("Hint 3 of")
    assert kata("restore", "lora_linear", "3").returncode == 0
    source = (tmp_path / "work" / "lora_linear.py").read_text(encoding="utf-8")
    assert source == "# größer, 'quoted'; --\n"
    assert kata("start", "lora_linear", KATA_HOME=str(tmp_path / "new")).returncode == 0
    assert _schema(tmp_path / "home" / "progress.db") == _schema(tmp_path / "new" / "progress.db")


@pytest.mark.parametrize("dump", VERSIONS[1:], ids=lambda dump: dump.stem)
def test_what_is_remembered_is_read_from_every_version(
    kata: Kata, tmp_path: Path, dump: Path
) -> None:
    """Cards, ratings (also one taken back), answers (also one left unfinished), the plan, the
    open hunt, interviews and their events."""
    _lay(dump, tmp_path / "home")
    found = _told(kata, "export", "json")
    assert {card["key"] for card in found["cards"]} == {
        "kata:lora_linear",
        "bug:lora_linear",
        "question:lora-init-symptoms",
        "question:lora-parameter-count",
        "question:lora-merge-latency",
    }
    assert [(r["key"].partition(":")[2], r["rating"]) for r in found["reviews"]] == [
        ("lora_linear", "hard"),
        ("lora-init-symptoms", "good"),
        ("lora-parameter-count", "hard"),
        ("lora_linear", "easy"),
        ("lora-merge-latency", "hard"),
    ]
    assert [
        (a["text"], a["seconds"], a["correct"], a["points"], a["rating"]) for a in found["answers"]
    ] == [
        ("B is zero,\nA is not", 30.5, None, [0, 2], "good"),
        ("1.5 M", 20.0, False, [], "hard"),
        ("because", 5.0, None, None, None),
        ("so far", 0.0, None, None, None),
        ("the scale is missing", 100.0, None, None, "easy"),
        ("no latency", 25.0, None, [0], "hard"),
    ]
    plan = _told(kata, "plan", "--json")["plan"]
    assert plan == {
        "interview": "2026-03-20",
        "minutes_per_day": 40,
        "deck": "core",
        "made": None,
    }

    first, second = _told(kata, "mock", "--list", "--json")["mocks"]
    assert (first["finished"], first["used_s"]) == (True, 150.0)
    assert (second["finished"], second["used_s"]) == (False, 1.0)
    warmup, coding, _ = _told(kata, "mock", "--report", "1", "--json")["rounds"]
    assert [(a["text"], a["said"]) for a in warmup["answers"]] == [("no latency", 1)]
    assert (coding["level"], coding["hints"], coding["passed_s"]) == ("complete", 1, 20.0)

    assert kata("bug", "ia3_linear", "--hint").stdout.startswith("Hint 2 of 2")
    assert "Taken back: hard for lora-parameter-count" in kata("quiz", "--undo").stdout


def test_every_version_is_kept() -> None:
    """The schema's files are numbered from 1 without a gap, and each has its dump."""
    numbers = [path.stem for path in sorted((PACKAGE / "store" / "schema").glob("*.sql"))]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
    assert [dump.stem for dump in VERSIONS] == numbers


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """Half a migration is none, also of a file that is being made."""
    schema = tmp_path / "schema"
    schema.mkdir()
    for number, text in enumerate(("CREATE TABLE a (x);", "CREATE TABLE b (x); CREATE TABLE c"), 1):
        (schema / f"{number:04}.sql").write_text(f"-- One; two.\n{text}\n")
    purpose = PROGRESS._replace(schema=schema)
    file = tmp_path / "progress.db"
    with pytest.raises(StoreError, match="incomplete input"):
        Database(file, create=True, purpose=purpose)
    assert list(tmp_path.iterdir()) == [schema]
    with sqlite3.connect(file) as old:
        old.executescript("CREATE TABLE a (x); PRAGMA user_version = 1")
    old.close()
    for create in (True, False):
        with pytest.raises(StoreError, match="incomplete input"):
            Database(file, create=create, purpose=purpose)
        assert _schema(file) == (1, {"CREATETABLEa(x)"})


def test_one_transaction_over_several_sections(tmp_path: Path) -> None:
    """What is begun together is stored together or not at all."""
    with Store(tmp_path / "progress.db", create=True) as store:
        for fails in (True, False):
            with suppress(ZeroDivisionError), store.transaction():
                id = store.memory.answer("bug:lora_linear", "said", MOMENT, seconds=1)
                store.memory.add_review("bug:lora_linear", Rating.GOOD, MOMENT, None, id)
                store.settings.set("hunt:lora_linear", "")
                store.attempts.begin_round("lora_linear", MOMENT)
                1 / (not fails)
            with Store(tmp_path / "progress.db", create=False) as other:
                assert len(other.memory.answers()) == len(other.memory.reviews()) == (not fails)
                assert other.settings.get("hunt:lora_linear") == (None if fails else "")


def _imported(file: Path) -> set[str]:
    """The modules that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_store_alone_speaks_sql_and_knows_nobody() -> None:
    """No other module opens a database; of the rest of the program the store knows the errors
    and what a verdict is."""
    for file in PACKAGE.rglob("*.py"):
        imports = _imported(file)
        if file.parent.name != "store":
            assert "sqlite3" not in imports, file
            assert "grader.store.database.Database" not in imports, file
            continue
        ours = {name for name in imports if name.startswith("grader.")}
        strange = [n for n in ours if not n.startswith(("grader.store", "grader.exam.verdict"))]
        assert all(name.startswith("grader.errors") for name in strange), file


@pytest.mark.parametrize(
    ("spoil", "command"),
    [
        ("UPDATE interview_events SET data = '{'", ["mock", "--list"]),
        ("UPDATE quizzes SET options = '{'", ["quiz"]),
        ("UPDATE answers SET points = '{'", ["export", "json"]),
        ("UPDATE attempts SET verdict = '{'", ["history", "lora_linear"]),
        ("UPDATE reviews SET rating = 9", ["export", "json"]),
        ("UPDATE cards SET due = 'soon'", ["list"]),
        ("UPDATE cards SET memory = '{'", ["stats"]),
        ("UPDATE rounds SET at = 'then'", ["list"]),
    ],
)
def test_rows_that_cannot_be_read_are_told_in_plain_words(
    kata: Kata, tmp_path: Path, spoil: str, command: list[str]
) -> None:
    """The file is named, and that it is damaged; no traceback."""
    _lay(VERSIONS[1], tmp_path / "home")
    with sqlite3.connect(tmp_path / "home" / "progress.db") as spoilt:
        spoilt.execute(spoil)
    spoilt.close()
    done = kata(*command, KATA_CLOCK="2026-03-04T12:00:00+00:00 x0", TZ="UTC")
    assert done.returncode == 3, done.stdout
    assert f"{tmp_path / 'home' / 'progress.db'} is damaged" in done.stderr
    assert "Traceback" not in done.stderr
