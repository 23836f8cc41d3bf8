"""`kata quiz`: sittings, and the real command in a child process with a small bank of its own.

`KATA_KILL_RUNS=200 pytest tests/test_quiz.py -k kill` runs the property test at the end 200 times
instead of 12.
"""

import contextlib
import os
import pty
import random
import resource
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import small_bank
from small_bank import ONE_DRAW, spoken
from terminals import Terminal

from grader.practice import repetition
from grader.practice.queue import NEW_A_DAY
from grader.recall import bank, numbers, points, quiz
from grader.recall.bank import Question
from grader.recall.quiz import Options, Sitting, Turn
from grader.store import Store
from grader.store.memory import Memory, Rating

KATA = [sys.executable, "-m", "grader"]
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)

Environment = dict[str, str]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of ours with its own questions: a, b, c on lora, `count` on rank."""
    return small_bank.clone(tmp_path / "clone")


@pytest.fixture
def around(clone: Path, environment: Environment) -> Environment:
    return {**environment, "PYTHONPATH": str(clone), "KATA_CLOCK": NOW.isoformat()}


@pytest.fixture
def kata(around: Environment, tmp_path: Path) -> Run:
    """Runs `kata` with what is piped in."""

    def run(*arguments: str, given: str = "", **extra: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*KATA, *arguments],
            cwd=tmp_path / "work",
            env={**around, **{k: v for k, v in extra.items() if k.isupper()}},
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            preexec_fn=extra.get("before"),
        )

    return run


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[str], list[tuple[Any, ...]]]:
    """Queries the progress file."""

    def query(sql: str) -> list[tuple[Any, ...]]:
        # Not created by asking: an empty file would be a damaged one.
        uri = (tmp_path / "home" / "progress.db").as_uri() + "?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            return database.execute(sql).fetchall()

    return query


# Through the real command


def test_a_quiz_from_start_to_end(kata: Run, rows: Callable[[str], Any]) -> None:
    """Answer, reveal, ticks, rating, due date, summary; all of it is stored."""
    done = kata("quiz", "--topic", "lora", given="mine\nmore\n\n1 3\n\n\nall\n2\n\n\n\n")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in (
        "3 new.",
        "1 of 3 · lora · recall · easy · a · new",
        "What about W₀ + (α/r) BA in a?",
        "h = W₀ x + (α/r) B A x",
        "  3  point three",
        "Katas: lora_linear",
        "2 of 4 points, which suggests: hard.",
        "  3 good   on 4 March (in 2 days)",
        "Rated hard. Due again in 15 minutes.",
        "4 of 4 points, which suggests: easy.",
        "0 of 4 points, which suggests: again.",
        "3 answered in",
        "1 again, 2 hard.",
        "6 of 12 points said.",
    ):
        assert text in done.stdout
    assert rows("SELECT key, text, points FROM answers") == [
        ("question:a", "mine\nmore", "[0, 2]"),
        ("question:b", "", "[0, 1, 2, 3]"),
        ("question:c", "", "[]"),
    ]
    assert rows("SELECT rating FROM reviews") == [(2,), (2,), (1,)]


def test_numbers(kata: Run, rows: Callable[[str], Any]) -> None:
    """Drawn anew; what cannot be read is asked for again; the slip of a wrong one is named."""
    drawn = {(1024 * 2**a, 4 * 2**b) for a in range(3) for b in range(3)}
    seen = set()
    for _ in range(2):
        page = kata("quiz", "--ask", "count", given="many\n1\n\nall\n\n")
        assert "`many` holds no number. Wanted is a number of parameters, such as" in page.stdout
        assert "✗ Not right: you gave 1 parameters; it is" in page.stdout
        words = page.stdout.split("A layer of ")[1].replace(",", "").split()
        seen.add((int(words[0]), int(words[4].rstrip("."))))
    assert len(seen) == 2
    assert seen <= drawn
    # The same seed gives the same numbers when the rating was left out.
    kata("quiz", "--ask", "count", given="1\n\nall\n")
    resumed = kata("quiz", "--ask", "count")
    assert "You answered this, and it is not rated yet." in resumed.stdout
    assert "3 of 3 points, but the number was not right, which suggests: hard." in resumed.stdout
    assert rows("SELECT correct FROM answers") == [(0,), (0,), (0,)]


def test_the_slip_is_named(kata: Run, rows: Callable[[str], Any], clone: Path) -> None:
    """As katas name bugs: the cause of the number that was typed."""
    (clone / "questions" / "rank.yaml").write_text(ONE_DRAW)
    wrong = kata("quiz", "--ask", "count", given="8,192\n\n\n\n")
    assert wrong.returncode == 0, wrong.stderr
    assert "✗ Not right: you gave 8192 parameters; it is 16,384 parameters." in wrong.stdout
    assert "why: Only A is counted, 8192; B is as large." in wrong.stdout
    right = kata("quiz", "--ask", "count", given="16.4k\n\n1\n\n")
    assert "✓ Right: 16,384 parameters." in right.stdout
    assert rows("SELECT correct FROM answers") == [(0,), (1,)]


def test_a_number_and_then_the_rest(kata: Run, rows: Callable[[str], Any], clone: Path) -> None:
    """The verdict on the number comes first, the rest is asked for, and only then comes the model
    answer; without a number the answer is the rest alone."""
    (clone / "questions" / "rank.yaml").write_text(ONE_DRAW)
    given = "16,384\n?\ntwo factors\n/?\nno bias\n\nall\n\n"
    page = kata("quiz", "--ask", "count", given=given).stdout
    places = [
        page.index(text)
        for text in (
            "✓ Right: 16,384 parameters.",
            "Now the rest:",
            "leave (also Ctrl-D)",
            "  > 16,384\n  > two factors\n",
            "Model answer",
            "3 of 3 points",
        )
    ]
    assert places == sorted(places)
    assert page.count("✓ Right") == 1
    without = kata("quiz", "--ask", "count", given="\n\n1\n\n")
    assert "No number. Now the rest:" in without.stdout
    assert "The number is 16,384 parameters." in without.stdout
    kata("quiz", "--ask", "count", given="\nonly words\n\n2\n\n")
    assert rows("SELECT text, correct, points FROM answers") == [
        ("16,384\ntwo factors\nno bias", 1, "[0, 1, 2]"),
        ("", None, "[0]"),
        ("\nonly words", None, "[1]"),
    ]


def test_the_rest_of_a_number_on_a_terminal(
    around: Environment, rows: Callable[[str], Any], clone: Path
) -> None:
    """Ctrl-D between the number and the rest ends cleanly; the next quiz goes on with the rest."""
    (clone / "questions" / "rank.yaml").write_text(ONE_DRAW)
    command = [*KATA, "quiz", "--ask", "count"]
    desk = Terminal(command, clone, around)
    desk.until("Type a number of parameters", "> ")
    desk.type("16,384\r")
    desk.until("✓ Right: 16,384 parameters.", "Now the rest:", "> ")
    desk.type("\x04")
    page = desk.until("1 answer is stored without a rating")
    assert "Model answer" not in page
    assert desk.end() == 0
    desk = Terminal(command, clone, around)
    desk.until("So far:", "✓ Right: 16,384 parameters.", "Now the rest:", "> ")
    desk.type("two factors\r\r")
    desk.until("Model answer", "none): ")
    desk.type("all\r")
    desk.until("3 of 3 points, which suggests: easy.", "easy): ")
    desk.type("\r")
    desk.until("1 answered in", "1 easy")
    assert desk.end() == 0
    assert rows("SELECT text, correct FROM answers") == [("16,384\ntwo factors", 1)]


def test_the_keys_at_a_number(kata: Run) -> None:
    """The question is shown again after them, with what may be typed."""
    done = kata("quiz", "--ask", "count", given="?\n1\n\n\n\n")
    assert done.stdout.count("Type a number of parameters") == 2
    assert "this help" in done.stdout


def test_a_kill_between_number_and_rest(
    around: Environment, kata: Run, rows: Callable[[str], Any], clone: Path
) -> None:
    """The number is not asked for again, its verdict is shown again, and the rest goes on."""
    (clone / "questions" / "rank.yaml").write_text(ONE_DRAW)
    for given, stored in (("8,192\n", ["8,192"]), ("because\n", ["8,192\nbecause"])):
        with _talk(around, "--ask", "count") as talk:
            talk.say(given).wait_until(lambda: rows("SELECT text FROM answers") == [(stored[0],)])  # noqa: B023
            talk.kill()
    done = kata("quiz", "--ask", "count", given="of rank\n\n1\n\n")
    assert done.returncode == 0, done.stderr
    assert "when the last quiz broke off. So far:\n  > 8,192\n  > because\n" in done.stdout
    assert "why: Only A is counted, 8192; B is as large." in done.stdout
    assert "Type a number" not in done.stdout
    assert "1 of 3 points, but the number was not right, which suggests: again." in done.stdout
    assert rows("SELECT text, correct FROM answers") == [("8,192\nbecause\nof rank", 0)]


def test_numbers_stored_alone_still_read(deck: Memory, questions: tuple[Question, ...]) -> None:
    """Answers of an earlier version hold the number and no rest: they are complete."""
    id = deck.begin_quiz({}, NOW)
    deck.end_quiz(id, NOW)
    (count,) = (q for q in questions if q.numeric is not None)
    assert count.numeric is not None
    names = numbers.drawn(count.numeric, 3)
    right = f"{2 * names['r'] * names['d']}"
    deck.answer(quiz.key("count"), right, NOW, seconds=9, draw=3, correct=True, quiz=id)
    turn = Sitting(deck, questions, Options(), NOW).next(NOW, 1)
    assert turn is not None
    assert (turn.finished, turn.wants_number, turn.text) == (True, False, right)
    assert turn.judged is not None
    assert turn.judged.correct


def test_cram_leaves_the_schedule_alone(kata: Run, rows: Callable[[str], Any]) -> None:
    """Answers and ticks are stored, and not one rating."""
    assert kata("quiz", "--ask", "a", given="\n1\n\n").returncode == 0
    cards = rows("SELECT * FROM cards")
    done = kata("quiz", "--cram", "--topic", "lora", given="x\n\n1\ny\n\n2\nz\n\n3\n")
    assert done.returncode == 0, done.stderr
    assert "the schedule stays as it is" in done.stdout
    assert rows("SELECT text, points FROM answers")[1:] == [
        ("x", "[0]"),
        ("y", "[1]"),
        ("z", "[2]"),
    ]
    assert rows("SELECT * FROM cards") == cards
    assert len(rows("SELECT * FROM reviews")) == 1
    assert "to go on with" not in kata("quiz").stdout


def test_keys(kata: Run, rows: Callable[[str], Any]) -> None:
    """?, f, t and u at their places; q leaves with a summary and exit code 0."""
    given = [
        *("?", "f", "a real answer", "", "f", "said this", "", "1"),  # help, answer, follow-up
        *("f", "", "f", "t", "1 2 3", "3"),  # at the rating: follow-up, none left, tick again
        *("u", "1"),  # at the next question: the rating again
        "q",
    ]
    done = kata("quiz", given="\n".join(given) + "\n")
    assert done.returncode == 0, done.stderr
    for text in (
        "leave (also Ctrl-D)",
        "The follow-ups come after the answer.",
        "Because of a.",
        "Then not.",
        "These were all its follow-ups.",
        "Rated good.",
        "Taken back: the rating of a. Rate it again.",
        "Rated again.",
        "1 answered in",
    ):
        assert text in done.stdout
    assert rows("SELECT key, text, points FROM answers") == [
        ("question:a", "a real answer", "[0, 1, 2]"),
        ("followup:a/1", "said this", None),
    ]
    assert rows("SELECT rating, undone FROM reviews") == [(3, 1), (1, 0)]
    assert kata("quiz", "--undo").stdout.startswith("Taken back: again for a.")
    assert rows("SELECT * FROM cards") == []
    nothing = kata("quiz", "--undo")
    assert nothing.returncode == 2
    assert nothing.stderr == "error: There is no rating of a quiz to take back.\n"


def test_wrong_usage(kata: Run, clone: Path) -> None:
    """Unknown names are told with the nearest; input that ends is exit code 2."""
    for arguments, text in (
        (["--ask", "coumt"], "No question is called 'coumt'. Did you mean count?"),
        (["--topic", "lorra"], "No topic is called 'lorra'. Did you mean lora?"),
        (["--ask", "a", "--topic", "lora"], "--ask names one question"),
        (["--undo", "--cram"], "--undo goes alone."),
        (["--limit", "0"], "'--limit'"),
        ([], "There is no input left to answer with"),
    ):
        done = kata("quiz", *arguments)
        assert done.returncode == 2, arguments
        assert text in done.stderr
        assert "Traceback" not in done.stderr
    completed = kata(
        _KATA_COMPLETE="bash_complete", COMP_WORDS="kata quiz --topic l", COMP_CWORD="3"
    )
    assert completed.stdout == "plain,lora\n"
    completed = kata(_KATA_COMPLETE="bash_complete", COMP_WORDS="kata quiz --ask c", COMP_CWORD="3")
    assert completed.stdout == "plain,c\nplain,count\n"


def test_broken_bank(kata: Run, clone: Path) -> None:
    """Exit code 3, with every fault, file, line, question and field."""
    lora = clone / "questions" / "lora.yaml"
    lora.write_text(
        lora.read_text().replace("  sources: [a paper]\n", "", 1).replace("id: c", "id: b")
    )
    done = kata("quiz")
    assert done.returncode == 3
    assert done.stderr == (
        "error: In the question bank 2 things are wrong:\n"
        "lora.yaml:1: a, sources: is missing\n"
        "lora.yaml:28: b, id: this id is taken by lora.yaml:14\n"
    )


@pytest.mark.parametrize("columns", ["40", "60", "100"])
def test_pages_fit_and_are_plain(kata: Run, columns: str) -> None:
    """Nothing is wider than the terminal, and without one there is no colour."""
    given = "an answer\n\nf\n\n?\n1\n\n12\n1\n\n\n\n\n\n\n"
    done = kata("quiz", given=given, COLUMNS=columns)
    assert max(map(len, done.stdout.splitlines())) <= int(columns)
    assert "\x1b" not in done.stdout
    assert "$" not in done.stdout
    ascii_ = kata("quiz", "--cram", given=given, PYTHONIOENCODING="ascii")
    assert ascii_.stdout.isascii()
    assert "h = W_0 x + (alpha/r) B A x" in ascii_.stdout


def test_the_day_has_so_many_new_questions(kata: Run, clone: Path) -> None:
    """New ones come up to the daily number, tomorrow the next; due ones come first."""
    ids = [f"q{number}" for number in range(NEW_A_DAY + 2)]
    (clone / "questions" / "lora.yaml").write_text("".join(map(spoken, ids)))
    today = kata("quiz", given="\n1 2 3\n\n" * NEW_A_DAY)
    assert today.returncode == 0, today.stderr
    assert f"{NEW_A_DAY} new." in today.stdout
    assert "the day's new questions are done" in today.stdout
    more = kata("quiz")
    assert more.returncode == 0
    assert "Nothing more today: the day's new questions are done." in more.stdout
    again = kata("quiz", "--ask", "q0", given="\n\n\n")  # no point: again in ten minutes
    assert "Nothing more for now. The next is due in 10 minutes." in again.stdout
    later = kata("quiz", KATA_CLOCK=(NOW + 3 * DAY).isoformat())
    assert f"{NEW_A_DAY} due, 3 new." in later.stdout  # two of lora, and `count`
    assert "1 of 13 · lora · recall · easy · q0\n" in later.stdout


def test_clock_set_back(kata: Run) -> None:
    """A week back: nothing is lost, and what was rated is due when it was."""
    assert kata("quiz", "--ask", "a", given="\n1 2 3\n\n").returncode == 0
    back = (NOW - 7 * DAY).isoformat()
    done = kata("quiz", "--topic", "lora", "--limit", "1", given="\nall\n\n", KATA_CLOCK=back)
    assert done.returncode == 0, done.stderr
    again = kata("quiz", "--ask", "a", given="\n1\n\n", KATA_CLOCK=back)
    assert again.returncode == 0, again.stderr


def test_two_quizzes_at_once(around: Environment, rows: Callable[[str], Any]) -> None:
    """Neither takes over what the other is asking, and nothing of either is lost."""
    with _talk(around, "--topic", "lora") as one, _talk(around, "--topic", "lora") as two:
        one.say("from one\n\n").wait_for("Model answer")
        two.say("from two\n\n").wait_for("Model answer")
        with _talk(around, "--topic", "lora") as third:
            assert "to go on with" not in third.wait_for("?: the keys")
        one.say("1 2\n3\n").wait_for("Rated good.")
        two.say("1 2 3\n4\n").wait_for("Rated easy.")
    assert rows("SELECT text, points, rating FROM answers JOIN reviews ON answer = answers.id") == [
        ("from one", "[0, 1]", 3),
        ("from two", "[0, 1, 2]", 4),
    ]


def test_goes_on_after_a_kill(around: Environment, kata: Run, rows: Callable[[str], Any]) -> None:
    """Killed in the middle of an answer, after it, after its ticks: the next quiz goes on there
    and says so."""
    with _talk(around, "--topic", "lora") as talk:
        talk.say("first line\n").wait_until(lambda: rows("SELECT * FROM answers") != [])
        talk.kill()
    with _talk(around, "--topic", "lora") as talk:
        page = talk.say("last line\n\n").wait_for("Model answer")
        assert "1 to go on with from last time, 2 new." in page
        assert (
            "You were answering this when the last quiz broke off. So far:\n  > first line" in page
        )
        talk.kill()
    with _talk(around) as talk:
        page = talk.say("1 4\n").wait_for("2 of 4 points")
        assert (
            "You answered this, and it is not rated yet. You said:\n  > first line\n  > last"
            in page
        )
        talk.kill()
    done = kata("quiz", "--limit", "1", given="\n")
    assert done.returncode == 0, done.stderr
    assert "Rated hard." in done.stdout
    assert rows("SELECT text, points FROM answers") == [("first line\nlast line", "[0, 3]")]
    assert "to go on with" not in kata("quiz").stdout


def test_read_only_and_full_folders(kata: Run, tmp_path: Path, around: Environment) -> None:
    """One plain message and exit code 3, before anything was asked or when space runs out; what
    was stored before stays."""
    home = tmp_path / "home"
    home.write_text("a file where the folder should be")
    done = kata("quiz")
    assert done.returncode == 3
    assert "cannot be made" in done.stderr
    assert done.stdout == ""
    home.unlink()
    assert kata("quiz", "--ask", "a", given="\n1\n\n").returncode == 0

    def no_space() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    answer = "a long answer " * 10_000
    full = kata("quiz", "--topic", "lora", given=f"{answer}\n\n1\n\n", before=no_space)
    assert full.returncode == 3
    assert "progress file" in full.stderr
    assert "Traceback" not in full.stderr
    with Store(home / "progress.db", create=False) as store:
        assert [a.key for a in store.memory.answers()] == ["question:a"]


def test_on_a_terminal(around: Environment) -> None:
    """Prompts, Ctrl-D and Ctrl-C: a summary and 0, a line and 130, never a traceback."""
    for last, status, text in (
        (b"\x04", 0, "without a rating: the next `kata quiz` goes on there."),
        (b"\x03", 130, "Stopped. All that you gave is stored"),
    ):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*KATA, "quiz", "--topic", "lora"],
            cwd=around["PYTHONPATH"],
            env={**around, "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(theirs)
        said = ""
        try:
            for wanted, typed in (("> ", b"an answer\n\n"), ("none): ", last)):
                said += _until(ours, wanted)
                time.sleep(0.2)  # the very moment in which a prompt appears takes no Ctrl-C
                os.write(ours, typed)
            said += _until(ours, None)
            assert process.wait(timeout=30) == status
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        assert text in said.replace("\r\n", " ")
        assert "Traceback" not in said


def _until(handle: int, text: str | None) -> str:
    """What comes from a terminal until this text, or its end. After a silence Enter is typed:
    readline has waited with a Ctrl-C for the next key."""
    silent = False
    said = b""
    while text is None or text not in said.decode(errors="replace"):
        if not select.select([handle], [], [], 10)[0]:
            assert not silent, said
            silent = True
            os.write(handle, b"\n")
            continue
        try:
            piece = os.read(handle, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
    return said.decode(errors="replace")


class _Talk:
    """A quiz in a child process, spoken to line by line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process, self.heard = process, ""

    def say(self, text: str) -> "_Talk":
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()
        return self

    def wait_for(self, text: str) -> str:
        assert self.process.stdout is not None
        while text not in self.heard:
            piece = self.process.stdout.readline()
            assert piece, self.heard
            self.heard += piece
        return self.heard

    def wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(sqlite3.OperationalError):  # no table yet
                if condition():
                    return
            assert time.monotonic() < end
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def _talk(environment: Environment, *arguments: str) -> Iterator[_Talk]:
    with subprocess.Popen(
        [*KATA, "quiz", *arguments],
        cwd=environment["PYTHONPATH"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield _Talk(process)
        finally:
            process.kill()


# Sittings


@pytest.fixture
def deck(tmp_path: Path) -> Iterator[Memory]:
    with Store(tmp_path / "progress.db", create=True) as opened:
        yield opened.memory


@pytest.fixture
def questions(clone: Path) -> tuple[Question, ...]:
    return bank.load(clone / "questions")


def _rated(sitting: Sitting, turn: Turn, rating: Rating, now: datetime) -> None:
    sitting.give(turn, "", now, 1.0)
    sitting.tick(turn, ())
    sitting.rate(turn, rating, now)


def _next(sitting: Sitting, now: datetime) -> str:
    turn = sitting.next(now, 1)
    assert turn is not None
    return turn.question.id


def test_order(deck: Memory, questions: tuple[Question, ...]) -> None:
    """The most overdue first, then new ones in teaching order."""
    for id, days in (("b", 5), ("c", 9)):
        repetition.rate(deck, quiz.key(id), Rating.GOOD, NOW - days * DAY)
    sitting = Sitting(deck, questions, Options(), NOW)
    assert sitting.counts(NOW) == (0, 2, 2)
    assert [_next(sitting, NOW) for _ in range(4)] == ["c", "b", "a", "count"]
    assert sitting.next(NOW, 1) is None


def test_a_turn_that_others_went_on_with(deck: Memory, questions: tuple[Question, ...]) -> None:
    """It stands while it is answered, ticked, and its rating taken back; no longer when another
    sitting rated its question or took its answer over."""
    here, there = (Sitting(deck, questions, Options(topic="lora"), NOW) for _ in range(2))
    turn = here.next(NOW, 1)
    assert turn is not None
    here.draft(turn, "a", NOW)
    assert here.stands(turn)
    _rated(here, turn, Rating.GOOD, NOW)
    assert not here.stands(turn)
    again = here.undo()
    assert again is not None
    assert here.stands(again)
    other = there.next(NOW, 1)
    assert other is not None
    assert other.key == turn.key
    _rated(there, other, Rating.EASY, NOW)
    assert not here.stands(again)
    unanswered = here.next(NOW, 1)
    assert unanswered is not None
    assert here.stands(unanswered)
    here.draft(unanswered, "b", NOW)
    Sitting(deck, questions, Options(), NOW)
    assert not here.stands(unanswered)


def test_a_follow_up_is_gone_on_with(deck: Memory, questions: tuple[Question, ...]) -> None:
    """What was typed to it is stored as it is typed, until tomorrow."""
    later = NOW + HOUR

    def asked(now: datetime) -> tuple[Sitting, Turn]:
        sitting = Sitting(deck, questions, Options(ask="a"), now)
        turn = sitting.next(now, 1)
        assert turn is not None
        sitting.give(turn, "", now, 1.0)
        assert sitting.follow_up(turn, now) is not None
        return sitting, turn

    first, turn = asked(NOW)
    assert turn.followup_text == ""
    first.draft_follow_up(turn, "beca", NOW)
    first.draft_follow_up(turn, "because", NOW)
    second, turn = asked(later)
    assert turn.followup_text == "because"
    second.give_follow_up(turn, "because of it", later, 3.0)
    third, turn = asked(later)
    assert turn.followup_text == ""
    third.draft_follow_up(turn, "half", later)
    _, turn = asked(later + DAY)
    assert turn.followup_text == ""
    found = [(a.text, a.finished) for a in deck.answers("followup:a/1")]
    assert found == [("because of it", True), ("half", False)]


def test_the_terminal_goes_on_with_a_follow_up(
    kata: Run, rows: Callable[[str], Any], clone: Path, tmp_path: Path
) -> None:
    """That was being answered elsewhere: what is typed comes after it."""
    with Store(tmp_path / "home" / "progress.db", create=True) as store:
        sitting = Sitting(store.memory, bank.load(clone / "questions"), Options(ask="a"), NOW)
        turn = sitting.next(NOW, 1)
        assert turn is not None
        sitting.give(turn, "", NOW, 1.0)
        sitting.follow_up(turn, NOW)
        sitting.draft_follow_up(turn, "because", NOW)
        sitting.end(NOW)
    page = kata("quiz", "--ask", "a", given="f\nof it\n\n1\n\n").stdout
    assert "Why?\n\n  > because\n" in page
    assert rows("SELECT text FROM answers WHERE key LIKE 'followup%'") == [("because\nof it",)]


def test_failed_ones_come_back_when_due(deck: Memory, questions: tuple[Question, ...]) -> None:
    """In the same sitting once their minutes are over, and first; a new sitting asks them last."""
    sitting = Sitting(deck, questions, Options(), NOW)
    turn = sitting.next(NOW, 1)
    assert turn is not None
    _rated(sitting, turn, Rating.AGAIN, NOW)
    assert _next(sitting, NOW) == "b"
    assert Sitting(deck, questions, Options(), NOW).waiting(NOW)[-1] == quiz.key("a")
    assert _next(sitting, NOW + HOUR) == "a"


def test_limit_and_topic(deck: Memory, questions: tuple[Question, ...]) -> None:
    sitting = Sitting(deck, questions, Options(topic="lora", limit=2), NOW)
    assert [_next(sitting, NOW) for _ in range(2)] == ["a", "b"]
    assert sitting.next(NOW, 1) is None


def test_cram_begins_with_the_weakest(deck: Memory, questions: tuple[Question, ...]) -> None:
    """What is least likely recalled first; what was answered today after all else."""
    repetition.rate(deck, quiz.key("a"), Rating.AGAIN, NOW - DAY)
    repetition.rate(deck, quiz.key("b"), Rating.EASY, NOW - DAY)
    deck.answer(quiz.key("c"), "", NOW, seconds=1)
    sitting = Sitting(deck, questions, Options(topic="lora", cram=True), NOW)
    assert [_next(sitting, NOW) for _ in range(3)] == ["a", "b", "c"]


def test_numbers_differ_from_the_last_time(deck: Memory, questions: tuple[Question, ...]) -> None:
    """Whatever the seed, the same numbers never come twice in a row."""
    last = None
    for _ in range(10):
        sitting = Sitting(deck, questions, Options(ask="count"), NOW)
        turn = sitting.next(NOW, 1)
        assert turn is not None
        assert turn.names != last
        assert f"rank {turn.names['r']}." in turn.question.prompt
        _rated(sitting, turn, Rating.GOOD, NOW)
        last = turn.names


def test_old_unrated_answers_are_left_alone(deck: Memory, questions: tuple[Question, ...]) -> None:
    """What was answered on an earlier day, or answered again since, is not asked about."""
    sitting = Sitting(deck, questions, Options(), NOW)
    turn = sitting.next(NOW, 1)
    assert turn is not None
    sitting.give(turn, "old", NOW, 1.0)
    assert Sitting(deck, questions, Options(), NOW + DAY).counts(NOW + DAY)[0] == 0
    newer = Sitting(deck, questions, Options(ask="a"), NOW)
    turn = newer.next(NOW, 1)
    assert turn is not None
    assert turn.resumed
    _rated(newer, turn, Rating.GOOD, NOW)
    assert Sitting(deck, questions, Options(), NOW).counts(NOW)[0] == 0


def test_an_edited_question_is_gone_on_with(deck: Memory, questions: tuple[Question, ...]) -> None:
    """Ticks and numbers that no longer fit the question are asked for again."""
    id = deck.begin_quiz({}, NOW)
    one = deck.answer(quiz.key("a"), "", NOW, seconds=1, quiz=id)
    deck.tick(one, (0, 5))
    deck.answer(quiz.key("count"), "37 MB", NOW, seconds=1, correct=True, quiz=id)
    deck.answer(quiz.key("gone"), "", NOW, seconds=1, quiz=id)
    sitting = Sitting(deck, questions, Options(), NOW)
    first, second = sitting.next(NOW, 1), sitting.next(NOW, 1)
    assert first is not None
    assert second is not None
    assert (first.question.id, first.points) == ("a", None)
    assert (second.question.id, second.judged) == ("count", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 3 4", (0, 2, 3)),
        ("4,1, 3", (0, 2, 3)),
        ("134", (0, 2, 3)),
        ("1-3", (0, 1, 2)),
        ("1 and 2", (0, 1)),
        ("ALL", (0, 1, 2, 3)),
        ("", ()),
        ("none", ()),
        ("5", None),
        ("0 1", None),
        ("15", None),
        ("yes", None),
        ("1-99999999999", None),
    ],
)
def test_points_said(text: str, said: tuple[int, ...] | None) -> None:
    """Points as people type them; anything else is told."""
    if said is None:
        with pytest.raises(ValueError, match="numbers from 1 to 4 are wanted"):
            points.said(text, 4)
    else:
        assert points.said(text, 4) == said


def test_rating() -> None:
    assert quiz.rating("", Rating.HARD) is Rating.HARD
    assert quiz.rating("3", Rating.HARD) is Rating.GOOD
    assert quiz.rating("Ea", Rating.HARD) is Rating.EASY
    with pytest.raises(ValueError, match="1 again, 2 hard, 3 good, 4 easy"):
        quiz.rating("5", Rating.HARD)


# kill -9 at any moment


_ACKNOWLEDGED = ("Model answer\n", "2 of 4 points, which", "Rated good.")


@pytest.mark.slow
def test_kill_at_random_moments_loses_nothing_acknowledged(
    clone: Path, around: Environment, tmp_path: Path
) -> None:
    """What was printed after it was stored is there after a kill -9 at any moment: the answer
    once its model answer is shown, the ticks once they are counted, the rating once it is told.
    The answer that was left without a rating is what the next sitting begins with."""
    ids = [f"q{number}" for number in range(8)]
    (clone / "questions" / "lora.yaml").write_text("".join(map(spoken, ids)))
    draw = random.Random(0)
    longest, seen = 0.3, set()
    for number in range(int(os.environ.get("KATA_KILL_RUNS", "12"))):
        home = tmp_path / f"run{number}"
        script = "".join(f"{number} {id}\nmore\n\n1 2\n3\n" for id in ids)
        with _talk({**around, "KATA_HOME": str(home)}, "--topic", "lora") as talk:
            talk.say(script).wait_for("?: the keys")
            assert talk.process.stdout is not None
            began = time.monotonic()
            if number % 2:  # at some time
                time.sleep(draw.uniform(0, longest))
            else:  # just when something is acknowledged
                acknowledged = draw.randrange(1, 3 * len(ids))
                while acknowledged:
                    talk.heard += (heard := talk.process.stdout.readline())
                    acknowledged -= any(word in heard for word in _ACKNOWLEDGED)
            talk.kill()
            said = talk.heard + talk.process.stdout.read()
            if "answered in" in said:  # it was over before: kill earlier
                longest = max(0.9 * (time.monotonic() - began), 0.01)
        answered, ticks, ratings = (said.count(word) for word in _ACKNOWLEDGED)
        seen.add((answered - ratings, answered))
        with contextlib.closing(sqlite3.connect(home / "progress.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with Store(home / "progress.db", create=False) as store:
            deck = store.memory
            stored = deck.answers()
            texts = [a.text for a in stored if a.finished]
            assert texts[:answered] == [f"{number} {id}\nmore" for id in ids[:answered]]
            assert [a.points for a in stored[:ticks]] == [(0, 1)] * ticks
            assert [a.rating for a in stored[:ratings]] == [Rating.GOOD] * ratings
            assert len(deck.cards()) == len(deck.reviews()) >= ratings
            questions = bank.load(clone / "questions")
            turn = Sitting(deck, questions, Options(topic="lora"), NOW).next(NOW, 1)
            unrated = [a for a in stored if a.rating is None]
            assert len(unrated) <= 1
            assert turn is None or turn.resumed == bool(unrated)
            assert not unrated or (turn is not None and turn.text == unrated[0].text)
    assert len(seen) > 3  # the kills fell into different moments
