"""quiz: active recall, scheduled by FSRS."""

import secrets
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, TypeVar

import click

from grader.cli import common, terminal
from grader.cli.terminal import legend, prompts
from grader.cli.terminal.legend import Key
from grader.errors import UsageFault
from grader.practice import clock, plan, repetition
from grader.recall import bank, numbers, quiz
from grader.recall.quiz import Options, Sitting, Turn
from grader.store import Store, StoreError
from grader.views import question as pages
from grader.views.plain import wrapped

T = TypeVar("T")


class _Topic(common.ParamType[str]):
    """A topic, or what only one begins with."""

    name = "topic"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        return bank.topic(value)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(topic) for topic in bank.TOPICS if topic.startswith(incomplete)]


class _Id(common.ParamType[str]):
    """A question's id, or what only one begins with."""

    name = "id"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        return bank.find(value)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        try:
            found = bank.load()
        except bank.BankError:
            return []
        return [CompletionItem(q.id) for q in found if q.id.startswith(incomplete)]


@click.command("quiz")
@click.option("--topic", metavar="TOPIC", type=_Topic(), help="Questions on this topic alone.")
@click.option(
    "--deck",
    type=click.Choice(common.DECKS),
    help="Questions of this deck; else of the plan's, or core, and what you began of the other.",
)
@click.option("--limit", metavar="N", type=click.IntRange(1), help="At most so many questions.")
@click.option("--cram", is_flag=True, help="Without the schedule, and without changing it.")
@click.option("--ask", "id_", metavar="ID", type=_Id(), help="Ask this one question.")
@click.option("--undo", is_flag=True, help="Take the last rating back, and end.")
def quiz_command(
    topic: str | None,
    deck: str | None,
    limit: int | None,
    cram: bool,
    id_: str | None,
    undo: bool,
) -> None:
    """Active recall: what is due first, then new questions.

    Each question is answered aloud or typed; then its model answer and rubric are shown, you tick
    the points that you made, and the rating they suggest decides when it comes back.
    """
    if undo:
        if topic or deck or limit or cram or id_:
            raise UsageFault("--undo goes alone.")
        _undo()
        return
    if id_ and (topic or deck or limit):
        raise UsageFault(
            "--ask names one question: --topic, --deck and --limit make no sense with it."
        )
    questions = bank.load()
    now = clock.now().astimezone()
    with Store.open(create=True) as store:
        followed = plan.current(store.settings, now)
        options = Options(topic, limit, cram, id_, deck)
        _Quiz(Sitting(store.memory, questions, options, now, followed)).run()


def _undo() -> None:
    with Store.open(create=True) as store:
        answer = repetition.undo(store.memory)
    if answer is None or answer.rating is None:
        raise UsageFault("There is no rating of a quiz to take back.")
    id = answer.key.partition(":")[2]
    terminal.tell(
        f"Taken back: {answer.rating.name.lower()} for {id}.",
        "Next: `kata quiz` asks for its rating again, if the answer is of today.",
    )


class _Quiz:
    """The conversation around one sitting."""

    def __init__(self, sitting: Sitting) -> None:
        self.sitting = sitting
        self.place = ""

    @property
    def look(self) -> tuple[int, bool]:
        """Width and colour; the window may change in the middle."""
        return terminal.width(), terminal.colour()

    def run(self) -> None:
        """Ask until all is asked or the learner leaves; then sum up."""
        self._say_begin()
        try:
            self._ask_all()
        except prompts.Left:
            pass
        except KeyboardInterrupt:
            terminal.say("", "Stopped. All that you gave is stored; `kata quiz` goes on there.")
            raise
        except UsageFault:  # piped input ran out: what was given counts all the same
            self._say_end()
            raise
        self._say_end()

    def _say_begin(self) -> None:
        counts = self.sitting.counts(_now())
        if not sum(counts):
            return
        text = pages.begun(counts, self.sitting.options.cram, self.sitting.beyond_plan)
        terminal.say(*self._wrapped(f"{text} Enter alone: said aloud. ?: the keys."))

    def _say_end(self) -> None:
        now = _now()
        terminal.say(*pages.summary(self.sitting.end(now), now, *self.look))

    def _ask_all(self) -> None:
        done = 0
        while (turn := self.sitting.next(_now(), secrets.randbelow(2**31))) is not None:
            done += 1
            left = len(self.sitting.waiting(_now()))
            self.place = f"{done} of {done + left}"
            self._turn(turn)

    def _turn(self, turn: Turn) -> None:
        began = clock.seconds()
        self._say_question(turn)
        if turn.resumed:
            self._say_resumed(turn)
        if turn.wants_number:
            self._number(turn)
        if not turn.finished:
            self._answer(turn, began)
        terminal.say(*pages.reveal(turn, *self.look))
        if turn.points is None:
            self._tick(turn)
        if not self.sitting.options.cram:
            self._rate(turn)

    def _say_question(self, turn: Turn) -> None:
        standing = "" if turn.card else "new"
        terminal.say(*pages.question(turn.question, self.place, standing, *self.look))

    def _say_resumed(self, turn: Turn) -> None:
        text = pages.resumed(turn)
        terminal.say(*self._wrapped(text), *pages.so_far(turn.text, *self.look))
        self._say_verdict(turn)

    def _say_verdict(self, turn: Turn) -> None:
        """On the number, if there is one."""
        numeric = turn.question.numeric
        if numeric is not None and turn.judged is not None:
            terminal.say(*pages.verdict(turn.judged, numeric.unit, *self.look))

    # Answering

    def _answer(self, turn: Turn, began: float) -> None:
        """Lines up to an empty one; each is stored before the next is read. Of a numeric question
        they are the rest, after its number."""
        if turn.question.numeric is not None:
            terminal.say(*pages.rest(turn, self.look[0]))
        while True:
            before = "" if turn.answer is None else f"{turn.text}\n"
            fresh = turn.question.numeric is not None and "\n" not in turn.text
            try:
                text = self._lines(turn, before, fresh or not before)
                break
            except _Pressed as pressed:
                self._press(pressed.key, turn)
                self._say_question(turn)
                terminal.say(*pages.so_far(turn.text, *self.look))
        took = max(clock.seconds() - began, 0.001)
        _stored(lambda: self.sitting.give(turn, (before + text).rstrip(), _now(), took))

    def _lines(self, turn: Turn, before: str, fresh: bool) -> str:
        """Lines after what was given `before`. Raises _Pressed."""

        def keep(text: str) -> None:
            _no_key(text, fresh)
            _stored(lambda: self.sitting.draft(turn, before + text, _now()))

        return prompts.lines("> ", each=keep)

    def _number(self, turn: Turn) -> None:
        """One number, asked for until it can be read, or none; its verdict."""
        assert turn.question.numeric is not None
        wanted = f"Type {numbers.wanted(turn.question.numeric.unit)}; Enter alone: none."
        terminal.say(*self._wrapped(wanted))
        while turn.wants_number:
            typed = prompts.line("> ")
            try:
                _no_key(typed, fresh=True)
                _stored(lambda: self.sitting.number(turn, typed, _now()))  # noqa: B023
            except _Pressed as pressed:
                self._press(pressed.key, turn)
                self._say_question(turn)
                terminal.say(*self._wrapped(wanted))
            except numbers.BadNumber as error:
                terminal.say(*self._wrapped(str(error)))
        self._say_verdict(turn)

    def _tick(self, turn: Turn) -> None:
        points = prompts.points(lambda prompt: self._line(prompt, turn), len(turn.question.points))
        _stored(lambda: self.sitting.tick(turn, points))
        if self.sitting.options.cram:
            terminal.say(pages.scored(turn, None))

    def _rate(self, turn: Turn) -> None:
        while True:
            now = _now()
            suggested = self.sitting.suggested(turn)
            terminal.say(
                pages.scored(turn, suggested),
                *pages.offers(self.sitting.offers(turn, now), now, *self.look),
            )
            typed = self._line(
                f"Rating (Enter: {int(suggested)} {suggested.name.lower()}): ", turn, again=True
            )
            if typed == legend.TICK.letter:
                self._tick(turn)
                continue
            try:
                rating = quiz.rating(typed, suggested)
            except ValueError as error:
                terminal.say(*self._wrapped(str(error)))
                continue
            card = _stored(lambda: self.sitting.rate(turn, rating, now))  # noqa: B023
            terminal.say(*pages.rated(rating, card.due, now, self.look[1]))
            return

    # Keys

    def _line(self, prompt: str, turn: Turn, again: bool = False) -> str:
        """A line that is no key; `again` lets `t` through, to tick again."""
        while True:
            typed = prompts.line(prompt)
            found = legend.read(typed, legend.QUIZ, legend.QUIZ)
            if found is None:
                return typed.lower()
            if again and found[0] is legend.TICK:
                return legend.TICK.letter
            self._press(found[0], turn)

    def _press(self, key: Key, turn: Turn) -> None:
        if key is legend.LEAVE:
            raise prompts.Left
        if key is legend.HELP:
            terminal.say(*legend.page(legend.QUIZ, self.look[0]))
        elif key is legend.UNDO:
            self._take_back()
        elif key is legend.FOLLOW_UP and turn.finished:
            self._follow_up(turn)
        elif key is legend.FOLLOW_UP:
            terminal.say("The follow-ups come after the answer.")
        else:
            terminal.say("The points come after the answer.")

    def _take_back(self) -> None:
        """The last rating of this sitting, given anew."""
        turn = _stored(self.sitting.undo)
        if turn is None:
            terminal.say(
                *self._wrapped(
                    "No rating was given in this quiz yet; `kata quiz --undo` takes back the "
                    "last one of an earlier quiz."
                )
            )
            return
        terminal.say("", f"Taken back: the rating of {turn.question.id}. Rate it again.")
        self._rate(turn)

    def _follow_up(self, turn: Turn) -> None:
        asked = self.sitting.follow_up(turn, _now())
        if asked is None:
            terminal.say("These were all its follow-ups.")
            return
        place = f"{turn.shown_followups} of {len(turn.question.followups)}"
        terminal.say(*pages.follow_up(asked, place, *self.look))
        before = turn.followup_text  # of a front that went away
        if before:
            terminal.say(*pages.so_far(before, *self.look))
        began = clock.seconds()
        text = self._said(turn)
        if before or text:
            text = f"{before}\n{text}".strip()
            took = max(clock.seconds() - began, 0.001)
            _stored(lambda: self.sitting.give_follow_up(turn, text, _now(), took))
        terminal.say(*pages.follow_up_answer(asked, *self.look))

    def _said(self, turn: Turn) -> str:
        """What is typed to a follow-up."""

        def keep(text: str) -> None:
            if "\n" not in text:
                _no_key(text, fresh=True, keys=legend.ALWAYS)

        while True:
            try:
                return prompts.lines("> ", each=keep)
            except _Pressed as pressed:
                self._press(pressed.key, turn)

    def _wrapped(self, text: str) -> list[str]:
        return wrapped(text, self.look[0])


class _Pressed(Exception):
    """A key was typed where an answer was asked for."""

    def __init__(self, key: Key) -> None:
        self.key = key


def _no_key(text: str, fresh: bool, keys: Collection[Key] = legend.QUIZ) -> None:
    """Raises _Pressed if the last line of an answer is a key. One without a / is so only if it is
    the first line of an answer that is `fresh`."""
    lines = text.split("\n")
    bare = keys if fresh and len(lines) == 1 else ()
    if (found := legend.read(lines[-1], keys, bare)) is not None:
        raise _Pressed(found[0])


def _now() -> datetime:
    return clock.now().astimezone()


def _stored(store: Callable[[], T]) -> T:
    """Store something. On a terminal a failure may be mended and tried again: what was typed is
    still there."""
    while True:
        try:
            return store()
        except StoreError as error:
            if not prompts.interactive():
                raise
            terminal.note(f"error: {error}")
            if prompts.line("Not stored yet. Enter tries again, q gives up: ").lower() == "q":
                raise
