"""The question bank: `questions/<topic>.yaml`, read and validated as a whole."""

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from grader import catalog, content
from grader.errors import ContentError
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
)  # in teaching order; one file each

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
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


@cache
def load(folder: Path | None = None) -> tuple[Question, ...]:
    """All questions, by topic in teaching order. Raises BankError with every fault at once."""
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
    return tuple(sorted(found, key=lambda q: TOPICS.index(q.topic)))


def question(id: str) -> Question | None:
    """The question of this id, or None."""
    return next((q for q in load() if q.id == id), None)


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
        faults.append(Fault(path.name, 1, "", "", str(error)))
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
    """One question on its way from YAML."""

    def __init__(self, path: Path, node: yaml.Node, name: str, faults: list[Fault]) -> None:
        self.path, self.node, self.name, self.faults = path, node, name, faults
        self.good = True
        self.lines: dict[str, int] = {}

    def fault(self, field: str, message: str, line: int | None = None) -> None:
        self.good = False
        at = line or self.lines.get(field.partition("[")[0]) or _line(self.node)
        self.faults.append(Fault(self.path.name, at, self.name, field, message))

    def question(self) -> Question | None:
        if not isinstance(self.node, yaml.MappingNode):
            self.fault("", "a mapping is wanted")
            return None
        fields = self._fields()
        if "id" in fields and isinstance(fields["id"], str):
            self.name = fields["id"]
        kinds = typing.get_type_hints(Question)
        infos = {info.name: info for info in msgspec.structs.fields(Question)}
        for field in fields.keys() - infos.keys():
            self.fault(field, f"unknown field; there are {', '.join(infos)}")
        for field, info in infos.items():
            if field not in fields:
                if info.required:
                    self.fault(field, "is missing")
            else:
                self._convert(field, fields[field], kinds[field])
        if not self.good:
            return None
        question = msgspec.convert(fields, Question)
        self._rules(question)
        return question if self.good else None

    def _fields(self) -> dict[str, Any]:
        """Plain values by field; their lines are kept."""
        fields: dict[str, Any] = {}
        constructor = yaml.constructor.SafeConstructor()
        for key, node in self.node.value:
            name = str(key.value)
            if name in fields:
                self.fault(name, "stands twice", _line(key))
            self.lines[name] = _line(key)
            try:
                fields[name] = constructor.construct_document(node)
            except yaml.YAMLError as error:
                self.fault(name, str(error).splitlines()[0])
        return fields

    def _convert(self, field: str, plain: Any, kind: Any) -> None:
        """Hold one field to its type, lists item by item, so that every fault is told."""
        if typing.get_origin(kind) is tuple and isinstance(plain, list):
            inner = typing.get_args(kind)[0]
            for number, item in enumerate(plain, 1):
                self._convert(f"{field}[{number}]", item, inner)
            return
        try:
            msgspec.convert(plain, kind)
        except msgspec.ValidationError as error:
            self.fault(field, str(error))

    def _rules(self, question: Question) -> None:
        """What types do not say."""
        if question.topic != self.path.stem:
            self.fault("topic", f"is {question.topic}, the file is {self.path.name}")
        if not 3 <= len(question.points) <= 6:
            self.fault("points", f"are {len(question.points)}; a rubric has 3 to 6")
        if len(question.followups) < 2:
            self.fault("followups", f"are {len(question.followups)}; 2 or more are wanted")
        if not question.sources:
            self.fault("sources", "are none")
        for field in ("id", "prompt", "answer"):
            if not getattr(question, field).strip():
                self.fault(field, "is empty")
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
        if not all(numeric.draw.values()) or not numeric.draw:
            self.fault("numeric", "draw: every name needs choices")
            return
        texts = [question.prompt, question.answer, *question.points]
        texts += [slip.why for slip in numeric.slips]
        try:
            for names in numbers.all_draws(numeric):
                answer = numbers.value(numeric.answer, names)
                for slip in numeric.slips:
                    if numbers.close(numbers.value(slip.value, names), answer, numeric.tolerance):
                        self.fault("numeric", f"slip {slip.value} is the answer at {names}")
                        return
            for text in texts:
                numbers.filled(text, names)
        except ValueError as error:
            self.fault("numeric", str(error))
