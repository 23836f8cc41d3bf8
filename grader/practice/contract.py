"""What a kata asks for, read from its files without running them: the contract and the rules.

Nothing here shows an answer: of functions only the signature and the docstring are taken, of
checks only the first paragraph of the docstring.
"""

import ast
from dataclasses import dataclass

from grader import content
from grader.errors import ContentError, UsageFault
from grader.exam.verdict import Part
from grader.practice import stubs


@dataclass(frozen=True)
class Task:
    """`intro` is what the solution's module says first; `contract` the classes and functions
    to write, as Python without bodies; `rules` what is checked, by part, in the suite's order."""

    intro: str
    contract: str
    rules: dict[Part, list[str]]


def task(slug: str) -> Task:
    """What may be told of a kata before it is solved. Raises ContentError if a file is broken."""
    text = stubs.stub(slug)
    tree = ast.parse(text)
    pieces = _outline(tree.body, text.splitlines())
    return Task(ast.get_docstring(tree) or "", "\n".join(pieces).strip("\n"), rules(slug))


def rules(slug: str) -> dict[Part, list[str]]:
    """The promise of every check, by part, in the order of the parts."""
    found: dict[Part, list[str]] = {}
    for node in _suite(slug):
        part = _part(node, content.suite(slug).name)
        found.setdefault(part, []).append(_promise(node))
    return {part: found[part] for part in Part if part in found}


def promises(slug: str) -> dict[str, str]:
    """The promise of every check by its name, in the suite's order."""
    return {node.name.removeprefix("test_"): _promise(node) for node in _suite(slug)}


def checks(slug: str) -> dict[str, Part]:
    """The names of a kata's checks with their parts, in the suite's order."""
    name = content.suite(slug).name
    return {node.name.removeprefix("test_"): _part(node, name) for node in _suite(slug)}


def check(slug: str, words: str) -> str:
    """The name of the check that is meant by these words: its name as pages show it, or some of
    it. Raises UsageFault."""
    names = list(checks(slug))
    word = "_".join(words.rpartition(":")[2].lower().replace("-", " ").replace("_", " ").split())
    matching = [name for name in names if word == name] or [n for n in names if word in n]
    if len(matching) != 1:
        import difflib

        near = matching or difflib.get_close_matches(word, names, 3, 0.4) or names
        shown = ", ".join(name.replace("_", " ") for name in near[:6])
        what = "means several" if matching else "is none"
        more = "…" if len(near) > 6 else "."
        raise UsageFault(f"'{words}' {what} of the checks of {slug}: {shown}{more}")
    return matching[0]


def _suite(slug: str) -> list[ast.FunctionDef]:
    path = content.suite(slug)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ContentError(f"suites/{path.name}: {error}") from error
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return [node for node in functions if node.name.startswith("test_")]


def _part(node: ast.FunctionDef, name: str) -> Part:
    for mark in node.decorator_list:
        match mark:
            case ast.Call(func=ast.Name(id="part"), args=[ast.Constant(value=str(part)), *_]):
                if part in list(Part):
                    return Part(part)
    raise ContentError(f'suites/{name}:{node.lineno}: {node.name} has no @part("...").')


def _promise(node: ast.FunctionDef) -> str:
    promise = (ast.get_docstring(node) or _words(node.name)).partition("\n\n")[0]
    return " ".join(promise.split())


def _words(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def _outline(body: list[ast.stmt], lines: list[str]) -> list[str]:
    """Signatures, docstrings and fields of a module's or a class's body, as source lines."""
    kept: list[str] = []
    for node in body:
        match node:
            case ast.ClassDef():
                kept += ["", *_head(node, lines), *_outline(node.body, lines)]
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                kept += ["", *_head(node, lines)]
            case ast.AnnAssign() | ast.Assign():
                kept += lines[node.lineno - 1 : node.end_lineno]
    return kept


def _head(
    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]
) -> list[str]:
    """Decorators, signature and docstring, as they stand in the source."""
    first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
    start = node.body[0]
    if ast.get_docstring(node) is not None:
        return lines[first - 1 : start.end_lineno]
    last = start.lineno - 1
    if isinstance(start, (ast.ClassDef, ast.FunctionDef)):
        last = min([start.lineno, *(mark.lineno for mark in start.decorator_list)]) - 1
    head = lines[first - 1 : max(last, node.lineno)]
    while head and (not head[-1].strip() or head[-1].strip().startswith("#")):
        head.pop()
    return head
