"""The conversation around a mock interview: what its steps are like at a desk."""

from collections.abc import Collection, Mapping
from typing import TypeVar

from grader import catalog
from grader.cli.terminal import legend, prompts
from grader.cli.terminal.desk import Desk, Saved
from grader.cli.terminal.legend import Key
from grader.exam.verdict import Trouble, Verdict
from grader.interview import timing
from grader.interview.paper import Kind
from grader.interview.sitting import Sitting
from grader.interview.steps import (
    Begin,
    Compare,
    End,
    Mistakes,
    Question,
    Reveal,
    Step,
    Work,
)
from grader.practice.grading import Bench
from grader.recall.numbers import BadNumber
from grader.views import interview as pages
from grader.views.plain import wrapped
from grader.views.result import Around

T = TypeVar("T")

_SHARES = {"y": 1.0, "p": 0.5, "n": 0.0}
_YES = {"y": True, "yes": True, "n": False, "no": False}


class _Next(Exception):
    """The learner moves on."""


class Conversation:
    """One sitting, held at a desk to its end."""

    def __init__(self, sitting: Sitting, desk: Desk, bench: Bench) -> None:
        self.sitting, self.desk, self.bench = sitting, desk, bench
        self._shown: tuple[int, int] | None = None  # round and place of the question on the page
        self._grades = False

    @property
    def look(self) -> tuple[int, bool]:
        """Width and colour; the window may change in the middle."""
        return self.desk.width, self.desk.colour

    def run(self) -> None:
        """Go on to the end. Whatever breaks it off is raised again after a pause is stored."""
        self.desk.attach(self._status, self.sitting.beat)
        try:
            self.sitting.start()
            while (step := self.sitting.step()) is not None:
                try:
                    self._take(step)
                except _Next:
                    self._move_on(step)
        except BaseException as end:
            self.sitting.leave(_broken_off(end))
            raise
        finally:
            self.desk.detach()

    def _status(self) -> pages.Status:
        round = self.sitting.round
        last = "grading …" if self._grades else pages.standing(round.last)
        return pages.Status(
            title=round.round.title,
            number=self.sitting.number + 1,
            of=len(self.sitting.state.rounds),
            left_s=self.sitting.left_s,
            whole_left_s=self.sitting.whole_left_s,
            last=last if round.round.on_code else "",
            paused=self.sitting.halted,
        )

    def _take(self, step: Step) -> None:
        """One input of the learner's, or none where none is asked for. Raises _Next."""
        match step:
            case Begin():
                self._begin(step)
            case Question():
                self._question(step)
            case Work():
                self._work(step)
            case Mistakes():
                self.desk.say(*pages.mistakes(step.slug, step.best, step.bugs, *self.look))
                self.sitting.seen()
            case Compare():
                self._compare(step)
            case Reveal():
                self._reveal(step)
            case End():
                self._end()

    def _move_on(self, step: Step) -> None:
        if isinstance(step, Question):
            self.sitting.skip()
            return
        if isinstance(step, Work):
            if not step.unsaid and self.sitting.changed:  # what stands there at the end counts
                self._grade(step, "next")
        else:
            self.desk.say("The rest of the debrief is left; it counts neither way.")
        self._end()

    # What can be typed anywhere

    def _line(self, prompt: str, bare: Collection[Key] = legend.ALWAYS) -> str:
        """A line that is no key; `bare` are keys without a /. Raises _Next."""
        while True:
            text = self.desk.line(prompt)
            pressed = legend.read(text, legend.ASKED, bare)
            if pressed is None:
                return text
            self._press(*pressed, legend.ASKED)

    def _press(self, key: Key, rest: str, keys: Collection[Key]) -> None:
        if key is legend.NEXT:
            raise _Next
        if key is legend.LEAVE:
            raise prompts.Left
        if key is legend.PAUSE:
            self._pause(rest)
        else:
            self.desk.say(*legend.page(keys, self.desk.width))

    def _pause(self, reason: str) -> None:
        self.sitting.halt()
        reason = reason or self.desk.line("Paused. Why? ")
        self.sitting.pause(reason)
        self.desk.say(f"Paused: {reason or 'no reason given'}. The clock stands.")
        if self.desk.line("Enter goes on, q leaves: ").lower() == legend.LEAVE.letter:
            raise prompts.Left
        self.sitting.start()

    # Rounds

    def _begin(self, step: Begin) -> None:
        self.sitting.enter()
        round, of = self.sitting.round.round, len(self.sitting.state.rounds)
        number, left = self.sitting.number + 1, self.sitting.left_s
        self.desk.say(*pages.heading(round, number, of, left, step.again, *self.look))
        work = self.sitting.step()
        if isinstance(work, Work):
            page = pages.coding if round.kind is Kind.CODING else pages.hunting
            self.desk.say(*page(catalog.card(work.slug), str(work.path), *self.look))
            self.desk.watch(work.path)
            with self.desk.ticking():
                self.bench.ready()  # torch loads while the page is read
        elif round.kind is Kind.DEBRIEF:
            self.desk.say(*pages.debrief(self.desk.width))

    def _end(self) -> None:
        round = self.sitting.round
        self.sitting.end()
        used = round.used_s(self.sitting.state.clock_s)
        over = timing.over_s(round.round.minutes, used)
        self.desk.say(*pages.ended(round.round, used, over, self.desk.width))

    def _question(self, step: Question) -> None:
        """A line of the answer; an empty one ends it."""
        if step.draft:
            self.sitting.adopt()
            return
        here = self.sitting.number, step.place
        if here != self._shown:
            self._shown = here
            place, of = step.place + 1, len(self.sitting.round.round.asks)
            self.desk.say(*pages.question(step.ask, place, of, step.typed, *self.look))
            if step.ask.asks_number and step.typed:
                self.desk.say(*pages.heard(step.right, *self.look))
            self.desk.say(*self._wrapped(legend.short(legend.ASKED)))
        begun = len(step.typed) > step.ask.asks_number
        prompt = "number> " if step.number else "… " if begun else "> "
        text = self._line(prompt, legend.ALWAYS if begun else legend.ASKED)
        if not text and not step.number:
            self.sitting.answer()
            return
        try:
            self.sitting.write(text)
        except BadNumber as bad:
            self.desk.say(*self._wrapped(str(bad)))
            return
        after = self.sitting.step()
        if step.number and isinstance(after, Question):
            self.desk.say(*pages.heard(after.right, *self.look))

    # Code

    def _work(self, step: Work) -> None:
        """Grade on Enter and on saves, give hints, until the learner moves on."""
        typed = self.desk.line_or_save(f"{legend.short(legend.PROMPTED)} > ", step.path)
        if isinstance(typed, Saved):
            if self.sitting.changed:
                self._grade(step, "save")
            return
        word = typed.removeprefix("/")
        key, rest = legend.read(f"/{word}", legend.AT_WORK, ()) or (legend.HELP, "")
        if not word:
            self._grade(step, "enter")
        elif key is legend.HINT:
            self._hint()
        elif key is legend.EDIT:
            self.desk.edit(step.path)
        else:
            self._press(key, rest, legend.AT_WORK)

    def _grade(self, step: Work, by: str) -> None:
        if step.unsaid:
            text = ""
            while not text:
                text = self._line("What is wrong, in one line? ", legend.ASKED)
            self.sitting.diagnose(text)
        verdict = self.sitting.grade(self._judge, by)
        if verdict is None:
            self.desk.say(f"{step.path} is gone: save it again, or move on.")
        else:
            around = None
            if self.sitting.round.round.kind is Kind.CODING:
                bugs = {bug.id: bug for bug in catalog.entry(step.slug).bugs}
                around = Around(catalog.card(step.slug), bugs, str(step.path))
            self.desk.say(*pages.graded(verdict, around, self.sitting.used_s, *self.look))

    def _judge(self, slug: str, source: bytes | Trouble, name: str) -> Verdict:
        """While the clock line goes on: a file may take its time, or hang."""
        self._grades = True
        try:
            with self.desk.ticking():
                return self.bench.judge(slug, source, name)
        finally:
            self._grades = False

    def _hint(self) -> None:
        hint = self.sitting.hint()
        if hint is None:
            self.desk.say("There are no more hints.")
        else:
            self.desk.say(*pages.hint(hint.rung, hint.of, hint.text, self.desk.width))

    # Debrief

    def _compare(self, step: Compare) -> None:
        self.desk.say(*pages.answer(step.ask, step.answer, *self.look))
        if step.by_points:
            self.sitting.tick(prompts.points(self._line, len(step.ask.points)))
        elif step.answer.skipped:
            self._line("Enter goes on: ")
            self.sitting.weigh(0.0)
        else:
            prompt = "Did you say that? [y]es, [p]artly, [n]o: "
            self.sitting.weigh(self._choice(prompt, _SHARES, "y, p or n, please."))

    def _reveal(self, step: Reveal) -> None:
        page = pages.revealed(step.slug, step.bug, step.change, step.diagnosis, *self.look)
        self.desk.say(*page)
        prompt = "Did your diagnosis name it? [y/n] "
        right = bool(step.diagnosis) and self._choice(prompt, _YES, "y or n, please.")
        self.sitting.judge(right)

    def _choice(self, prompt: str, meant: Mapping[str, T], again: str) -> T:
        while (typed := self._line(prompt).lower()) not in meant:
            self.desk.say(again)
        return meant[typed]

    def _wrapped(self, text: str) -> list[str]:
        return wrapped(text, self.desk.width)


def _broken_off(end: BaseException) -> str:
    if isinstance(end, KeyboardInterrupt):
        return "Ctrl-C"
    return "left" if isinstance(end, prompts.Left) else "broken off"
