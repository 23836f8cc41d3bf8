"""Sources that are nearly alike: a hint for a person to look at, never a verdict.

A source is read as its syntax tree, so that formatting, comments and quotes are gone; docstrings
and annotations are taken out, names that the file itself binds all become one, and aliases of
modules their modules' names. What is left is cut into runs of tokens (shingles), of which those
that stand in the kata's stub do not count. Two sources are alike by the share of their shingles
that they have in common (Jaccard); the order of methods plays little part.

The reference solution is one of those compared: it is there for everybody to read.

Small katas leave little freedom: two honest answers of ten lines can be alike. So what has few
shingles of its own is not compared, and how many there are is said.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from itertools import chain, combinations

from grader import content
from grader.exam import source_text
from grader.practice import stubs

ALIKE = 0.8
REFERENCE = "the reference solution"
_SHINGLE = 9  # tokens
_LEAST = 40  # shingles of one's own
_LIMIT_BYTES = 100_000  # longer sources are compared as they are
_COMPARED = 1000  # different answers to a kata; of later ones only those that are the same


@dataclass(frozen=True)
class Group:
    """People whose answers to one kata are alike. least: the least likeness between two that
    were linked; own: how many shingles the smallest has beside the stub's."""

    slug: str
    people: tuple[str, ...]
    least: float
    own: int


@dataclass
class _Answer:
    """What some have all handed in; `shingles` is empty where it is not compared with others."""

    shingles: frozenset[bytes]
    own: int
    people: list[str] = field(default_factory=list)


def groups(slug: str, sources: Iterable[tuple[str, bytes]]) -> list[Group]:
    """Whose answers are alike, the most alike first. sources: who, and what they handed in."""
    reference = content.solution(slug).read_bytes()
    answers: dict[bytes, _Answer] = {}
    for who, source in chain([(REFERENCE, reference)], sources):
        own = shingles(slug, source)
        if len(own) >= _LEAST:
            key = blake2b(b"".join(sorted(own)), digest_size=16).digest()
            kept = own if len(answers) < _COMPARED else frozenset[bytes]()
            answers.setdefault(key, _Answer(kept, len(own))).people.append(who)
    found = [_group(slug, some, least) for some, least in _linked([*answers.values()])]
    return sorted(
        (group for group in found if len(group.people) > 1),
        key=lambda group: (-group.least, group.people),
    )


def shingles(slug: str, source: bytes) -> frozenset[bytes]:
    """The shingles of a source that are not the stub's; none if it cannot be read."""
    return _shingles(source) - _of_stub(slug)


def _linked(answers: list[_Answer]) -> Iterator[tuple[list[_Answer], float]]:
    """The answers, those together that are alike, also over others, and the least likeness."""
    together = {at: ([answer], 1.0) for at, answer in enumerate(answers)}
    at_home = [*together][:_COMPARED]
    for a, b, likeness in _pairs(answers):
        here, there = at_home[a], at_home[b]
        some, least = together[here]
        if here != there:
            more, other = together.pop(there)
            some, least = some + more, min(least, other)
            at_home = [here if home == there else home for home in at_home]
        together[here] = some, min(least, likeness)
    yield from together.values()


def _pairs(answers: Sequence[_Answer]) -> Iterator[tuple[int, int, float]]:
    for (a, one), (b, other) in combinations(enumerate(answers[:_COMPARED]), 2):
        few, many = sorted((len(one.shingles), len(other.shingles)))
        if few >= ALIKE * many:
            common = len(one.shingles & other.shingles)
            likeness = common / (few + many - common)
            if likeness >= ALIKE:
                yield a, b, likeness


def _group(slug: str, some: Sequence[_Answer], least: float) -> Group:
    people = tuple(sorted(who for answer in some for who in answer.people))
    return Group(slug, people, least, min(answer.own for answer in some))


@cache
def _of_stub(slug: str) -> frozenset[bytes]:
    return _shingles(stubs.stub(slug).encode())


def _shingles(source: bytes) -> frozenset[bytes]:
    tokens = _tokens(source)
    runs = (tokens[at : at + _SHINGLE] for at in range(max(1, len(tokens) - _SHINGLE + 1)))
    return frozenset(blake2b("\0".join(run).encode(), digest_size=8).digest() for run in runs)


def _tokens(source: bytes) -> list[str]:
    """The source as its tree's nodes, without names of its own."""
    text = source_text.decoded(source)
    if isinstance(text, source_text.Unreadable) or len(source) > _LIMIT_BYTES:
        return []
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    modules = _modules(tree)
    bound = _bound(tree) - modules.keys()
    tokens: list[str] = []
    left: list[object] = [tree]
    while left:  # not by recursion: how deep a source nests is its author's choice
        node = left.pop()
        if isinstance(node, ast.AST):
            said, inside = _node(node, bound, modules)
            tokens += said
            left += reversed(inside)
    return tokens


def _node(
    node: ast.AST, bound: set[str], modules: dict[str, str]
) -> tuple[list[str], list[object]]:
    """What stands for a node, and what is inside it."""
    if (whole := _dotted(node, modules)) is not None:
        return [whole], []
    match node:
        case ast.Import() | ast.ImportFrom() | ast.expr_context() | ast.Pass():
            return [], []
        case ast.Name(id=name):
            return ["own" if name in bound else name], []
        case ast.arg():
            return ["own"], []
        case ast.Attribute(value=value, attr=name):
            return [f".{'own' if name in bound else name}"], [value]
        case ast.Constant(value=value):
            return ["text" if isinstance(value, str) else repr(value)], []
        case ast.AnnAssign(target=target, value=value):
            return ["Assign"], [target, value]
        case ast.keyword(arg=name, value=value):
            return [f"{'own' if name in bound else name}="], [value]
        case ast.JoinedStr():
            return ["text"], []
    inside: list[object] = []
    for name, value in ast.iter_fields(node):
        if name in ("returns", "type_comment", "annotation", "type_params"):
            continue
        some = value if isinstance(value, list) else [value]
        inside += [item for item in some if not _is_docstring(item)]
    return [type(node).__name__], inside


def _dotted(node: object, modules: dict[str, str]) -> str | None:
    """The full name of what a chain of attributes takes from a module, however it was imported."""
    tail: list[str] = []
    while isinstance(node, ast.Attribute):
        tail.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id in modules:
        return ".".join([modules[node.id], *reversed(tail)])
    return None


def _is_docstring(node: object) -> bool:
    """A statement that is a text and nothing else, wherever it stands."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


def _bound(tree: ast.Module) -> set[str]:
    """The names that the file gives to something: variables, arguments, functions, attributes."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.ClassDef(name=name) | ast.arg(arg=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.ExceptHandler(name=str(name)):
                found.add(name)
    return found


def _modules(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for."""
    found = {}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    found[alias.asname or whole] = whole
            case ast.ImportFrom(module=module, names=names):
                for alias in names:
                    found[alias.asname or alias.name] = f"{module or ''}.{alias.name}"
    return found
