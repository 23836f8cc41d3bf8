"""Sources that are nearly alike: a hint for a person to look at, never a verdict.

A source is read as its syntax tree, so that formatting, comments and quotes are gone; docstrings
and annotations are taken out, names that the file itself binds all become one, and aliases of
modules their modules' names. What is left is cut into runs of tokens (shingles), of which those
that stand in the kata's stub do not count. Two sources are alike by the share of their shingles
that they have in common (Jaccard); the order of methods plays little part.

Small katas leave little freedom: two honest answers of ten lines can be alike. So what has few
shingles of its own is not compared, and how many there are is said.
"""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import combinations

from grader.exam import source_text
from grader.practice import stubs

ALIKE = 0.8
_SHINGLE = 9  # tokens
_LEAST = 40  # shingles of one's own
_LIMIT_BYTES = 100_000  # longer sources are compared as they are
_COMPARED = 1000  # submissions of a kata; beyond, only what is the same after normalising


@dataclass(frozen=True)
class Group:
    """People whose answers to one kata are alike. least: the least likeness between two that
    were linked; own: how many shingles the smallest has beside the stub's."""

    slug: str
    people: tuple[str, ...]
    least: float
    own: int


def groups(slug: str, sources: Iterable[tuple[str, bytes]]) -> list[Group]:
    """Whose answers are alike, the most alike first. sources: who, and what they handed in."""
    known = [(who, shingles(slug, source)) for who, source in sources]
    known = [(who, own) for who, own in known if len(own) >= _LEAST]
    links = list(_links([own for _, own in known]))
    return sorted(_grouped(slug, known, links), key=lambda group: (-group.least, group.people))


def shingles(slug: str, source: bytes) -> frozenset[bytes]:
    """The shingles of a source that are not the stub's; none if it cannot be read."""
    return _shingles(source) - _of_stub(slug)


def _links(sets: Sequence[frozenset[bytes]]) -> Iterator[tuple[int, int, float]]:
    """The pairs that are alike."""
    if len(sets) > _COMPARED:
        same: dict[frozenset[bytes], list[int]] = defaultdict(list)
        for at, own in enumerate(sets):
            same[own].append(at)
        yield from ((some[0], other, 1.0) for some in same.values() for other in some[1:])
        return
    for a, b in combinations(range(len(sets)), 2):
        few, many = sorted((len(sets[a]), len(sets[b])))
        if few >= ALIKE * many:
            common = len(sets[a] & sets[b])
            likeness = common / (few + many - common)
            if likeness >= ALIKE:
                yield a, b, likeness


def _grouped(
    slug: str,
    known: Sequence[tuple[str, frozenset[bytes]]],
    links: Sequence[tuple[int, int, float]],
) -> Iterator[Group]:
    first = list(range(len(known)))

    def root(at: int) -> int:
        while first[at] != at:
            first[at] = first[first[at]]
            at = first[at]
        return at

    for a, b, _ in links:
        first[root(b)] = root(a)
    least: dict[int, float] = {}
    for a, _, likeness in links:
        least[root(a)] = min(likeness, least.get(root(a), 1.0))
    members: dict[int, list[int]] = defaultdict(list)
    for at in range(len(known)):
        members[root(at)].append(at)
    for at, likeness in least.items():
        people = tuple(known[member][0] for member in members[at])
        own = min(len(known[member][1]) for member in members[at])
        yield Group(slug, people, likeness, own)


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
    for field, value in ast.iter_fields(node):
        if field in ("returns", "type_comment", "annotation", "type_params"):
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
    found = Counter[str]()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found[name] += 1
            case ast.ClassDef(name=name) | ast.arg(arg=name):
                found[name] += 1
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                found[name] += 1
            case ast.ExceptHandler(name=str(name)):
                found[name] += 1
    return set(found)


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
