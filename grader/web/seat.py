"""A mock interview that goes on in this server: its sitting, and who may touch it when.

Requests, the clock's tick and gradings come from several threads; one at a time works on the
sitting. While a file is judged, which may take its time, the others go on, as the clock line does
in a terminal.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from grader.errors import UsageFault
from grader.exam.verdict import Trouble, Verdict
from grader.interview.paper import Kind
from grader.interview.sitting import Sitting, alone
from grader.interview.steps import Begin, Compare, End, Mistakes, Question, Reveal, Step, Work
from grader.practice.grading import Graded, Judge
from grader.store.interviews import Interview
from grader.views import interview as words
from grader.web import desk, hunt, pages
from grader.web.editor import Edited

GONE_S = 900.0  # without a page, a request or a save: who sat here has gone


class Left(UsageFault):
    """The sitting does not go on here any more."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Mock {number} has paused or ended meanwhile; nothing was changed.")


class Seat:
    """Held against a second sitting while it is open; then it may go on elsewhere. Raises
    UsageFault if it does already."""

    def __init__(self, interview: Interview) -> None:
        self.interview = interview
        self._lock, self._held = threading.Lock(), contextlib.ExitStack()
        self._held.enter_context(alone(interview))
        try:
            self.sitting = Sitting(interview)
        except BaseException:
            self._held.close()
            raise
        self._open = True
        self._verdict = ""  # the last one, as a piece of a page
        self._base: str | None = None  # of the file as this server knows it
        self._heard = time.monotonic()

    @property
    def open(self) -> bool:
        return self._open

    @property
    def key(self) -> str:
        """What the names of its pages begin with."""
        return f"mock_{self.interview.number}_"

    @contextlib.contextmanager
    def working(self) -> Iterator[Sitting]:
        """The sitting, for one at a time. Raises Left."""
        with self._lock:
            if not self._open:
                raise Left(self.interview.number)
            self._heard = time.monotonic()
            yield self.sitting

    def judging(self, judge: Judge) -> Judge:
        """For whoever is working: lets the others go on meanwhile."""

        def judged(slug: str, source: bytes | Trouble, name: str) -> Verdict:
            self._lock.release()
            try:
                return judge(slug, source, name)
            finally:
                self._lock.acquire()

        return judged

    # Going on and leaving

    def start(self) -> None:
        """Let the clock run, and go to where something is asked."""
        with self.working() as sitting:
            sitting.start()
            self.go_on()

    def go_on(self) -> None:
        """For whoever is working: enter rounds and end them where nothing else is to be done."""
        sitting = self.sitting
        while isinstance(step := sitting.step(), (Begin, End)):
            if isinstance(step, Begin):
                sitting.enter()
                self._verdict, self._base = "", None
            else:
                sitting.end()
        if isinstance(step, Work) and self._base is None:
            self._base = desk.base(step.path)
        if sitting.state.over:
            self.close()

    def close(self) -> None:
        """For whoever is working: it does not go on here."""
        self._open = False
        self._held.close()

    def leave(self, reason: str) -> None:
        """Pause because the server ends, or nobody is there."""
        with contextlib.suppress(Left), self.working() as sitting:
            sitting.leave(reason)
            self.close()

    # Time

    def tick(self) -> str:
        """Note that time passes; the turn whose file was saved by something else than a page and
        is to be graded, "" without one."""
        with self._lock:
            if not self._open:
                return ""
            self.sitting.beat()
            step = self.sitting.step()
            if not isinstance(step, Work):
                return ""
            base = desk.base(step.path)
            if base == self._base:
                return ""
            self._base, self._heard = base, time.monotonic()
            return self.turn() if base and not step.unsaid and self.sitting.changed else ""

    def halt(self, turn: str, text: str) -> None:
        """Stop the clock, and keep what stands in the page as the answer of this turn."""
        self.draft(turn, text)
        with contextlib.suppress(Left), self.working() as sitting:
            sitting.halt()

    @property
    def gone(self) -> bool:
        return time.monotonic() - self._heard > GONE_S

    def clock(self) -> dict[str, Any]:
        """What the clock of a page shows: the times in words, what is to be said of them, which
        turn it is, and how many gradings there were, whatever has set them off."""
        with self._lock:
            if not self._open:
                return {"turn": ""}
            sitting, self._heard = self.sitting, time.monotonic()
            return {
                "turn": self.turn(),
                "left": words.remaining(sitting.left_s),
                "whole": words.remaining(sitting.whole_left_s),
                "late": sitting.left_s < 60,
                "said": self.warning,
                "graded": len(sitting.round.gradings),
            }

    @property
    def warning(self) -> str:
        """For whoever is working: the last one given in this round."""
        marks = self.sitting.round.warned
        return words.warning(60.0 * min(marks)) if marks else ""

    def turn(self) -> str:
        """For whoever is working: names what is asked now. A form of another turn is stale."""
        return _turn(self.sitting.number, self.sitting.step())

    def turn_now(self) -> str:
        """Raises Left."""
        with self.working():
            return self.turn()

    def draft(self, turn: str, text: str) -> None:
        """Keep what stands in a page as the answer, if it is of this turn."""
        with contextlib.suppress(Left), self.working() as sitting:
            step = sitting.step()
            if isinstance(step, Question) and not step.number and self.turn() == turn:
                sitting.draft(text)

    # Code

    def file(self, turn: str | None = None) -> Edited | None:
        """The file that is worked on, None if none is, or not in this turn. Raises Left."""
        with self.working() as sitting:
            step, now = sitting.step(), self.turn()
            if not isinstance(step, Work) or turn not in (None, now):
                return None
            saved = partial(self.grade, turn=now, by="save")
            return Edited(
                at=f"/mock/{self.interview.number}/{sitting.number + 1}",
                path=step.path,
                save=partial(self.save, step.path),
                keep=partial(desk.keep_beside, step.path),
                run=partial(self.grade, turn=now, by="enter"),
                saved=None if step.unsaid else saved,
            )

    def save(self, path: Path, text: str, out_from: str) -> str:
        """Put a text into the file of the round."""
        with self.working():
            self._base = desk.put_beside(path, text, out_from)
            return self._base

    def grade(self, judge: Judge, turn: str, by: str) -> dict[str, Any]:
        """Grade what is in the file, as the `verdict` event tells it; a save that has changed
        nothing is not graded again. Raises Left, Undiagnosed or StoreError."""
        with self.working() as sitting:
            step = sitting.step()
            if not isinstance(step, Work) or self.turn() != turn:
                raise Left(self.interview.number)
            if by == "enter" or sitting.changed:
                verdict = sitting.grade(self.judging(judge), by)
                if verdict is None:
                    raise UsageFault(f"{step.path} is gone: save it again, or move on.")
                self._verdict = self._shown(verdict)
            last = sitting.round.last
            return {
                "slug": step.slug,
                "passed": last is not None and last.passed,
                "html": self.verdict(),
                "graded": len(sitting.round.gradings),
            }

    def finish(self, judge: Judge, turn: str) -> dict[str, Any]:
        """End the round in this turn; what stands in a file at the end counts. Raises Left."""
        with self.working() as sitting:
            step = sitting.step()
            if self.turn() == turn:
                if isinstance(step, Work) and not step.unsaid and sitting.changed:
                    sitting.grade(self.judging(judge), "next")
                sitting.end()
                self.go_on()
        return {}

    def last(self) -> dict[str, Any]:
        """The last grading of the round, for a page that has not seen it. Raises Left."""
        with self.working() as sitting:
            return {"html": self.verdict(), "graded": len(sitting.round.gradings)}

    def verdict(self) -> str:
        """For whoever is working: the last grading of the round as a piece of a page; after a
        restart what the store knows of it."""
        last, round = self.sitting.round.last, self.sitting.round.round
        if last is None or not round.on_code:
            return ""
        if not self._verdict and round.kind is Kind.CODING and round.slug and last.sha256:
            known = pages.last_graded(round.slug, last.sha256)
            self._verdict = "" if known is None else pages.verdict(known, onward=False)
        if not self._verdict:
            self._verdict = pages.render("_standing.html", last=words.standing(last))
        return self._verdict

    def _shown(self, verdict: Verdict) -> str:
        if not verdict.started:
            return pages.render("_standing.html", last="Nothing is written yet.")
        if self.sitting.round.round.kind is Kind.HUNT:
            return hunt.judged(verdict)
        return pages.verdict(Graded(verdict), onward=False)


def _turn(number: int, step: Step | None) -> str:
    match step:
        case Question(place=place, typed=typed):
            return f"{number}-question-{place}-{len(typed)}"
        case Work(unsaid=unsaid):
            return f"{number}-{'hunt' if unsaid else 'work'}"
        case Mistakes(round=round):
            return f"{number}-mistakes-{round}"
        case Compare(round=round, place=place):
            return f"{number}-compare-{round}-{place}"
        case Reveal(round=round):
            return f"{number}-reveal-{round}"
    return f"{number}-over"
