"""The question bank: `questions/*.yaml`, read and validated as a whole."""

import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from grader import catalog, content, names
from grader.errors import ContentError, UsageFault
from grader.recall import numbers
from grader.recall.numbers import Numeric

KINDS = ("recall", "apply", "extend", "debug", "systems")
TOPICS = (
    "lora",
    "rank",
    "adapters",
    "prompts",
    "variants",
    "quantization",
    "serving",
    "training",
)  # in teaching order; the core deck has one file each
CORE, FRONTIER = DECKS = ("core", "frontier")  # frontier: its files begin with that name
ALL_DECKS = "all"
CHOICES = (*DECKS, ALL_DECKS)  # what may be asked for

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class FollowUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the interviewer asks next, and a good answer."""

    prompt: str
    answer: str


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One question. `points` is the rubric. Texts are Markdown with LaTeX between $ signs; in
    numeric questions `[[expression]]` stands for its value with the numbers drawn."""

    id: str
    topic: Literal[TOPICS]  # type: ignore[valid-type]
    kind: Literal[KINDS]  # type: ignore[valid-type]
    difficulty: Literal["easy", "medium", "hard"]
    prompt: str
    answer: str
    points: tuple[str, ...]
    followups: tuple[FollowUp, ...]
    sources: tuple[str, ...]
    katas: tuple[str, ...]
    numeric: Numeric | None = None
    deck: Literal[DECKS] = CORE  # type: ignore[valid-type]

    def within(self, deck: str) -> bool:
        """Whether it belongs to this deck; any does to `all`."""
        return deck in (self.deck, ALL_DECKS)


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a bank. `line` counts from 1."""

    file: str
    line: int
    question: str
    field: str
    message: str

    def __str__(self) -> str:
        where = ", ".join(w for w in (self.question, self.field) if w)
        return f"{self.file}:{self.line}: {where + ': ' if where else ''}{self.message}"


class BankError(ContentError):
    """The bank is broken; `faults` is everything that is."""

    def __init__(self, faults: list[Fault]) -> None:
        many = f"{len(faults)} things are" if len(faults) > 1 else "one thing is"
        super().__init__("\n".join([f"In the question bank {many} wrong:", *map(str, faults)]))
        self.faults = faults


class UnknownQuestion(UsageFault):
    """No question of that id; `near` holds the closest ones."""

    def __init__(self, text: str, near: list[str]) -> None:
        self.text, self.near = text, near
        ask = f" Did you mean {' or '.join(near)}?" if near else ""
        super().__init__(f"No question is called '{text}'.{ask}")


class UnknownTopic(UsageFault):
    """No topic of that name; `near` holds the closest ones, or all."""

    def __init__(self, text: str, near: list[str]) -> None:
        self.text, self.near = text, near
        ask = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(TOPICS)}."
        super().__init__(f"No topic is called '{text}'. {ask}")


@cache
def load(folder: Path | None = None) -> tuple[Question, ...]:
    """All questions, the core deck first, by topic in teaching order. Raises BankError with every
    fault at once."""
    folder = folder or content.questions()
    faults: list[Fault] = []
    found: list[Question] = []
    lines: dict[str, tuple[str, int]] = {}
    files = sorted(folder.glob("*.yaml"))
    if not files:
        faults.append(Fault(str(folder), 1, "", "", "there are no questions here"))
    for path in files:
        for question, line in _questions(path, faults):
            if question.id in lines:
                other, at = lines[question.id]
                text = f"this id is taken by {other}:{at}"
                faults.append(Fault(path.name, line, question.id, "id", text))
            lines.setdefault(question.id, (path.name, line))
            found.append(question)
    if faults:
        raise BankError(faults)
    return tuple(sorted(found, key=lambda q: (DECKS.index(q.deck), TOPICS.index(q.topic))))


def question(id: str) -> Question | None:
    """The question of this id, or None."""
    return next((q for q in load() if q.id == id), None)


def find(text: str) -> str:
    """The id meant by `text`: itself, or the only one that begins with it. Raises
    UnknownQuestion with the nearest ones otherwise, BankError if the bank is broken."""
    found, near = names.meant(text, [q.id for q in load()], "-")
    if found is None:
        raise UnknownQuestion(text, near)
    return found


def topic(text: str) -> str:
    """The topic meant by `text`, likewise. Raises UnknownTopic."""
    found, near = names.meant(text, list(TOPICS), "-")
    if found is None:
        raise UnknownTopic(text, near)
    return found


def _questions(path: Path, faults: list[Fault]) -> Iterator[tuple[Question, int]]:
    """The sound questions of one file with their lines; what is wrong goes to `faults`."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(str(w) for w in (error.problem, error.context) if w)
        faults.append(Fault(path.name, mark.line + 1 if mark else 1, "", "", f"YAML: {message}"))
        return
    except (OSError, ValueError, yaml.YAMLError) as error:
        faults.append(Fault(path.name, 1, "", "", " ".join(str(error).split())))
        return
    except RecursionError:
        faults.append(Fault(path.name, 1, "", "", "YAML: nested too deeply"))
        return
    if not isinstance(root, yaml.SequenceNode):
        faults.append(Fault(path.name, 1, "", "", "a list of questions is wanted"))
        return
    for number, node in enumerate(root.value, 1):
        checked = _Entry(path, node, f"question {number}", faults).question()
        if checked is not None:
            yield checked, _line(node)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Entry:
    """One question on its way from YAML. Each part is held to its type where it stands, so that
    every fault is told, with its own line."""

    def __init__(self, path: Path, node: yaml.Node, name: str, faults: list[Fault]) -> None:
        self.path, self.node, self.name, self.faults = path, node, name, faults
        self.good = True
        self.lines: dict[str, int] = {}

    def fault(self, field: str, message: str) -> None:
        self.good = False
        at = self.lines.get(field) or self.lines.get(field.partition("[")[0]) or _line(self.node)
        self.faults.append(Fault(self.path.name, at, self.name, field, message))

    def question(self) -> Question | None:
        if isinstance(self.node, yaml.MappingNode):
            for key, value in self.node.value:
                if key.value == "id" and isinstance(value, yaml.ScalarNode):
                    self.name = value.value or self.name
        plain = self._struct(self.node, Question, "")
        if not self.good:
            return None
        question = msgspec.convert(plain, Question)
        self._rules(question)
        return question if self.good else None

    def _value(self, node: yaml.Node, kind: Any, field: str) -> Any:
        """The plain value of one field, and every fault in it."""
        self.lines[field] = _line(node) if "[" in field else self.lines.get(field, _line(node))
        options = [k for k in typing.get_args(kind) if k is not type(None)]
        if type(None) in typing.get_args(kind):
            (kind,) = options
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self._struct(node, kind, field)
        if typing.get_origin(kind) is tuple:
            if not isinstance(node, yaml.SequenceNode):
                self.fault(field, "a list is wanted")
                return None
            return [
                self._value(item, options[0], f"{field}[{number}]")
                for number, item in enumerate(node.value, 1)
            ]
        try:
            plain = yaml.constructor.SafeConstructor().construct_document(node)
            msgspec.convert(plain, kind)
        except msgspec.ValidationError as error:
            self.fault(field, str(error))
            return None
        except (yaml.YAMLError, ValueError, TypeError) as error:
            self.fault(field, str(error).splitlines()[0])
            return None
        return plain

    def _struct(self, node: yaml.Node, kind: type[msgspec.Struct], within: str) -> Any:
        """A mapping with the fields of `kind`: none unknown, none missing, none twice."""
        if not isinstance(node, yaml.MappingNode):
            self.fault(within, "a mapping is wanted")
            return None
        types = typing.get_type_hints(kind)
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            field = f"{within}.{name}" if within else name
            if name in found:
                self.lines[field] = _line(key)
                self.fault(field, "stands twice")
                continue
            self.lines[field] = _line(key)
            found[name] = None
            if name in types:
                found[name] = self._value(value, types[name], field)
            else:
                self.fault(field, f"unknown field; there are {', '.join(types)}")
        for info in msgspec.structs.fields(kind):
            if info.required and info.name not in found:
                field = f"{within}.{info.name}" if within else info.name
                self.lines[field] = _line(node)
                self.fault(field, "is missing")
        return found

    def _rules(self, question: Question) -> None:
        """What types do not say."""
        if (question.deck == FRONTIER) != self.path.stem.startswith(FRONTIER):
            self.fault("deck", f"is {question.deck}, the file is {self.path.name}")
        elif question.deck == CORE and question.topic != self.path.stem:
            self.fault("topic", f"is {question.topic}, the file is {self.path.name}")
        if not 3 <= len(question.points) <= 6:
            self.fault("points", f"are {len(question.points)}; a rubric has 3 to 6")
        if len(question.followups) < 2:
            self.fault("followups", f"are {len(question.followups)}; 2 or more are wanted")
        if not question.sources:
            self.fault("sources", "are none")
        if not _ID.fullmatch(question.id):
            self.fault("id", "is not lower-case words joined by hyphens")
        for field in ("prompt", "answer"):
            if not getattr(question, field).strip():
                self.fault(field, "is empty")
        for number, followup in enumerate(question.followups, 1):
            if not followup.prompt.strip() or not followup.answer.strip():
                self.fault(f"followups[{number}]", "prompt or answer is empty")
        for field in ("points", "sources"):
            if any(not text.strip() for text in getattr(question, field)):
                self.fault(field, "holds an empty text")
        for slug in question.katas:
            if slug not in catalog.slugs():
                self.fault("katas", f"there is no kata {slug}")
        if question.numeric is not None:
            self._numbers(question, question.numeric)

    def _numbers(self, question: Question, numeric: Numeric) -> None:
        if question.kind != "apply":
            self.fault("numeric", f"belongs to questions of kind apply, not {question.kind}")
        if numeric.unit not in numbers.UNITS:
            self.fault("numeric", f"unit {numeric.unit}: there are {', '.join(numbers.UNITS)}")
        if not 0 < numeric.tolerance < 0.5:
            self.fault("numeric", f"tolerance {numeric.tolerance} is outside 0 to 0.5")
            return
        if not all(numeric.draw.values()) or not numeric.draw:
            self.fault("numeric", "draw: every name needs choices")
            return
        texts = [question.prompt, question.answer, *question.points]
        texts += [text for f in question.followups for text in (f.prompt, f.answer)]
        texts += [slip.why for slip in numeric.slips]
        try:
            for names in numbers.all_draws(numeric):
                told = {"the answer": numbers.value(numeric.answer, names)}
                for slip in numeric.slips:
                    got = numbers.value(slip.value, names)
                    for other, value in told.items():
                        if numbers.close(got, value, numeric.tolerance):
                            self.fault("numeric", f"slip {slip.value} is {other} at {names}")
                            return
                    told[f"slip {slip.value}"] = got
            for text in texts:
                numbers.filled(text, names)
        except ValueError as error:
            self.fault("numeric", str(error))
