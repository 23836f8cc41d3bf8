"""Copies of the progress file: made daily, brought back by `kata backup --restore`."""

import ctypes
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from grader.store import Store, StoreError, backups

Kata = Callable[..., "subprocess.CompletedProcess[str]"]

NOW = datetime(2026, 3, 7, 9, tzinfo=UTC)
DUMP = Path(__file__).parent / "databases" / "0002.sql"


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """Wide enough for a sentence with a path of this test in it."""
    return {**environment, "COLUMNS": "400"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The progress file of a learner with a few days behind them."""
    path = tmp_path / "home" / "progress.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.executescript(DUMP.read_text(encoding="utf-8"))
    Store(path, create=True).close()
    for backup in backups.listed(path):  # that before the schema was brought up to date
        backup.path.unlink()
    return path


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    with Store(path, create=True) as store:
        yield store


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def note(path: Path, text: str) -> None:
    """Something is stored, by a process of its own."""
    with opened(path) as store:
        store.settings.set("note", text)


def noted(path: Path) -> list[tuple[object, ...]]:
    return rows(path, "SELECT value FROM settings WHERE key = 'note'")


def as_of(path: Path, day: date) -> None:
    """Let the copy made today have been made on that day."""
    today = backups.listed(path)[-1].path
    moved = today.with_name(f"{day}.db")
    today.rename(moved)
    noon = datetime(day.year, day.month, day.day, 12).timestamp()
    os.utime(moved, (noon, noon))


def test_the_first_write_of_a_day_copies_what_was_there_before(kata: Kata, file: Path) -> None:
    """Only the first; what is only read makes none; it is one file, whole, and doctor shows it."""
    assert kata("list").returncode == 0
    assert kata("backup", "--list").stdout.startswith("There is no backup yet")
    note(file, "one")
    note(file, "two")
    (copy,) = backups.listed(file)
    assert noted(copy.path) == []
    assert noted(file) == [("two",)]
    assert [path.name for path in copy.path.parent.iterdir()] == [f"{copy.name}.db"]
    assert rows(copy.path, "PRAGMA integrity_check") == [("ok",)]
    doctor = json.loads(kata("doctor", "--json").stdout)["checks"]
    (found,) = (check["found"] for check in doctor if check["name"] == "backup")
    assert found == f"{copy.at:%Y-%m-%d %H:%M}, one of 1"


def test_the_last_seven_days_are_kept(file: Path) -> None:
    """However long ago they were; copies made by hand and what was put aside stay."""
    with opened(file) as store:
        by_hand = store.back_up()
        assert by_hand.by == "hand"
    (aside := by_hand.path.with_name("2020-01-01T09-00-00-replaced.db")).write_bytes(b"damaged")
    first = date(2026, 1, 1)
    for number in range(10):
        backups.keep_daily(file, first + timedelta(days=3 * number))
    daily = [b.name for b in backups.listed(file) if b.by == "itself"]
    assert daily == [str(first + timedelta(days=3 * number)) for number in range(3, 10)]
    assert by_hand.path.exists()
    assert aside.exists()


def test_a_damaged_file_pushes_no_good_copy_out(kata: Kata, file: Path) -> None:
    """What no query has met is met by the first write of the next day: nothing is written, and
    the copies of before stay."""
    note(file, "fine")
    as_of(file, date(2026, 3, 6))
    page = rows(file, "SELECT rootpage FROM sqlite_master WHERE name = 'events_by_interview'")[0][0]
    spoilt = bytearray(file.read_bytes())
    assert isinstance(page, int)
    spoilt[4096 * (page - 1) : 4096 * page] = random.Random(1).randbytes(4096)
    file.write_bytes(spoilt)
    done = kata("start", "ia3_linear")
    assert done.returncode == 3
    assert f"{file} is damaged" in done.stderr
    assert "`kata backup --restore` brings back the state of 2026-03-06 12:00" in done.stderr
    assert [backup.name for backup in backups.listed(file)] == ["2026-03-06"]


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "header": lambda whole: random.Random(1).randbytes(100) + whole[100:],
    "middle": lambda whole: (
        whole[:4096] + random.Random(2).randbytes(len(whole) - 8192) + whole[-4096:]
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_after_damage_yesterday_comes_back(
    kata: Kata, file: Path, tmp_path: Path, damage: str
) -> None:
    """Every command names the way out, and it leads to the state of that copy; the damaged file is
    kept byte by byte, and can be named again."""
    note(file, "today")
    as_of(file, date(2026, 3, 6))
    spoilt = DAMAGED[damage](file.read_bytes())
    file.write_bytes(spoilt)
    commands = ["list", "hint lora_linear"]
    if damage == "half":
        commands += ["today", "stats", "plan", "history lora_linear", "start ia3_linear", "quiz"]
        commands += ["mock --list", "export json", "backup", "bug ia3_linear"]
    for command in commands:
        done = kata(*command.split())
        assert done.returncode == 3, command
        assert len(done.stderr.splitlines()) == 2, command
        assert "`kata backup --restore` brings back the state of 2026-03-06" in done.stderr, command
        assert file.read_bytes() == spoilt
    done = kata("backup", "--restore")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "All that is stored is as it was on 2026-03-06 at 12:00."
    kept = Path(said[1].removeprefix("What was there is kept as "))
    assert kept.read_bytes() == spoilt
    assert len(json.loads(kata("history", "lora_linear", "--json").stdout)["attempts"]) == 4
    assert noted(file) == []
    again = kata("backup", "--restore", kept.stem)
    assert again.returncode == 3
    assert "is damaged as well; nothing was changed" in again.stderr


def test_by_hand_and_back(kata: Kata, file: Path, tmp_path: Path) -> None:
    """`kata backup` makes one at any time; a day, a name or its beginning brings one back, also
    what a restore put aside."""
    note(file, "first")
    made = kata("backup")
    assert made.returncode == 0, made.stderr
    name = made.stdout.split("--restore ")[1].split("`")[0]
    note(file, "second")
    assert kata("backup", "--restore", name).returncode == 0
    assert noted(file) == [("first",)]
    (aside,) = (b for b in backups.listed(file) if b.by == "restore")
    assert kata("backup", "--restore", aside.name).returncode == 0
    assert noted(file) == [("second",)]
    listed = json.loads(kata("backup", "--list", "--json").stdout)["backups"]
    assert sorted(b["by"] for b in listed) == ["hand", "itself", "restore", "restore"]
    for wrong in ("2020-01-01", "soon", ".."):
        done = kata("backup", "--restore", wrong)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: There is no backup of {wrong}.")
    file.unlink()
    assert kata("backup", "--restore", name).returncode == 0
    assert noted(file) == [("first",)]


def test_without_a_copy(kata: Kata, tmp_path: Path) -> None:
    """Nothing stored, or no copy yet: plain words, and nothing is made."""
    done = kata("backup")
    assert (done.returncode, done.stderr) == (
        2,
        "error: Nothing is stored yet, so there is nothing to copy.\n",
    )
    done = kata("backup", "--restore")
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no backup yet: the first write of a day")
    assert not (tmp_path / "home").exists()


def test_a_damaged_copy_is_passed_over(kata: Kata, file: Path) -> None:
    """The newest that is whole is taken, and that others are not is said; one that a newer kata
    wrote is not taken."""
    note(file, "one")
    as_of(file, date(2026, 3, 6))
    damaged = backups.folder(file) / "2026-03-07.db"
    damaged.write_bytes(file.read_bytes()[:5000])
    done = kata("backup", "--restore")
    assert done.returncode == 0, done.stderr
    assert "2026-03-07 is damaged and was passed over; it is still there." in done.stdout
    assert "as it was on 2026-03-06" in done.stdout
    before = file.read_bytes()
    newer = backups.folder(file) / "2026-03-08.db"
    newer.write_bytes(before)
    with closing(sqlite3.connect(newer)) as database:
        database.execute("PRAGMA user_version = 99")
    done = kata("backup", "--restore", "2026-03-08")
    assert done.returncode == 3
    assert "was written by a newer kata" in done.stderr
    assert file.read_bytes() == before


def test_while_another_kata_is_at_work(kata: Kata, file: Path) -> None:
    """A copy can be made, with what the other has stored; to bring one back waits for its end."""
    with opened(file) as store:
        store.settings.set("note", "of the other")
        made = kata("backup")
        assert made.returncode == 0, made.stderr
        copy = Path(made.stdout.splitlines()[0].removeprefix("Copied to "))
        assert noted(copy) == [("of the other",)]
        refused = kata("backup", "--restore", copy.stem)
        assert refused.returncode == 3
        assert "a quiz perhaps: end it first.\nNothing was changed." in refused.stderr
        store.settings.set("note", "later")
    assert noted(file) == [("later",)]
    assert kata("backup", "--restore", copy.stem).returncode == 0
    assert noted(file) == [("of the other",)]


def test_what_waits_in_the_log_goes_with_its_file(kata: Kata, file: Path) -> None:
    """After a kill the newest writes stand beside the file: they are put aside with it, and never
    taken for those of the copy."""
    note(file, "one")
    program = (
        "import os, sys; from pathlib import Path; from grader.store import Store\n"
        "store = Store(Path(sys.argv[1]), create=True)\n"
        "store.settings.set('note', 'killed'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", program, str(file)], check=False)
    assert Path(f"{file}-wal").stat().st_size > 0
    assert kata("backup", "--restore").returncode == 0
    assert noted(file) == []
    (aside,) = (b for b in backups.listed(file) if b.by == "restore")
    assert kata("backup", "--restore", aside.name).returncode == 0
    assert noted(file) == [("killed",)]


# Disks and permissions


def _unprivileged() -> None:
    """Let permissions hold for root, too: what is run has no capability to pass them by."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2, 3):  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def _no_space() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def _as(
    environment: dict[str, str], prepare: Callable[[], None], *command: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "grader", *command],
        env=environment,
        preexec_fn=prepare,
        capture_output=True,
        text=True,
    )


def test_a_file_without_permissions(environment: dict[str, str], file: Path) -> None:
    """The message says what to check, and that a copy can take the file's place, which it does."""
    note(file, "one")
    file.chmod(0)
    done = _as(environment, _unprivileged, "list")
    if done.returncode == 0:
        pytest.skip("permissions do not hold here")
    assert done.returncode == 3
    assert "cannot be opened" in done.stderr
    assert "permissions" in done.stderr
    assert "`kata backup --restore`" in done.stderr
    assert _as(environment, _unprivileged, "backup", "--restore").returncode == 0
    assert _as(environment, _unprivileged, "list").returncode == 0


def test_a_folder_that_cannot_be_written_to(environment: dict[str, str], file: Path) -> None:
    """What is stored can be read; a copy, or its return, is refused in plain words, and the file
    stays."""
    note(file, "one")
    before = file.read_bytes()
    folder = backups.folder(file)
    folder.chmod(0o555)
    file.parent.chmod(0o555)
    try:
        if (
            os.access(file.parent, os.W_OK)
            and _as(environment, _unprivileged, "init", str(file.parent / "new")).returncode != 2
        ):
            pytest.skip("permissions do not hold here")
        assert _as(environment, _unprivileged, "list").returncode == 0
        for command in (["backup"], ["backup", "--restore"]):
            done = _as(environment, _unprivileged, *command)
            assert done.returncode == 3, command
            assert "Permission denied" in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
        assert file.read_bytes() == before
    finally:
        file.parent.chmod(0o755)
        folder.chmod(0o755)


def test_a_full_disk(environment: dict[str, str], file: Path) -> None:
    """No half a copy is left; neither a daily one nor its lack keeps from practising."""
    before = file.read_bytes()
    done = _as(environment, _no_space, "backup")
    assert done.returncode == 3
    assert done.stderr.startswith("error: No copy can be made at")
    assert "Traceback" not in done.stderr
    assert backups.listed(file) == []
    assert [*backups.folder(file).iterdir()] == []
    with opened(file) as store:
        copy = store.back_up()
    done = _as(environment, _no_space, "backup", "--restore", copy.name)
    assert done.returncode == 3
    assert "Nothing was changed" in done.stderr
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["backups", "progress.db"]


def test_that_no_copy_can_be_made_keeps_nobody_from_practising(file: Path) -> None:
    """Where the folder of copies cannot be, what is written is written."""
    backups.folder(file).rmdir()
    backups.folder(file).write_text("a file where the folder should be")
    with opened(file) as store:
        store.memory.answer("question:a", "said", NOW, seconds=1)
        with pytest.raises(StoreError, match="No copy can be made"):
            store.back_up()
    assert rows(file, "SELECT count(*) FROM answers WHERE text = 'said'") == [(1,)]
