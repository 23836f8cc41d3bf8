"""A Jupyter notebook's answer to a kata, as Python source.

The answer is the last code cell that defines all of the kata's names; where no cell defines them
all, of each name the last cell that defines it. Such a cell is taken whole. Of the cells before it
only what the answer needs is taken: the statements that bind names which it uses (imports,
definitions, assignments), and what those use in turn. Prints, plots, training and tests of earlier
cells stay out, lines of IPython (`%time`, `!ls`) and cells in another language (`%%bash`) too.

A cell that begins with `%%kata SLUG` names its kata. If a notebook has such cells for a kata, no
other cell of it counts as the answer.
"""

import ast
import json
import re
import symtable
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_CELLS = 2000
_PYTHON_MAGICS = {"time", "timeit", "capture", "prun", "kata"}
_MAGIC = re.compile(r"%%(\w+)[ \t]*([^\n]*)(?:\n|$)")
_LINE = re.compile(r"^([ \t]*)(?:[%!?]|[\w.]+\?{1,2}$).*$", re.MULTILINE)


class Unreadable(Exception):
    """The bytes are no notebook; the message is one plain sentence."""


@dataclass(frozen=True)
class Cell:
    """A code cell in Python. kata: what `%%kata` says; body: None if it cannot be parsed."""

    text: str
    kata: str | None
    body: Sequence[ast.stmt] | None

    def defines(self, name: str) -> bool:
        if self.body is None:
            pattern = rf"^(?:async\s+def|def|class)\s+{re.escape(name)}\b"
            return re.search(pattern, self.text, re.MULTILINE) is not None
        return any(name in bound(statement) for statement in self.body)


def cells(data: bytes) -> list[Cell]:
    """The notebook's code cells. Raises Unreadable."""
    try:
        whole = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Unreadable("The notebook is damaged: it is no JSON.") from error
    try:
        # Notebooks before version 4 keep their cells in worksheets.
        sheets = [whole] if "cells" in whole else whole["worksheets"]
        found = [cell for sheet in sheets for cell in sheet["cells"]]
        code = [_text(cell) for cell in found if cell["cell_type"] == "code"]
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable("The file is JSON, but no Jupyter notebook.") from error
    if len(code) > _CELLS:
        raise Unreadable(f"The notebook has more than {_CELLS} cells.")
    return [cell for text in code if (cell := _cell(text)) is not None]


def _text(cell: dict[str, Any]) -> str:
    text = cell["source"] if "source" in cell else cell["input"]
    text = text if isinstance(text, str) else "".join(text)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _cell(text: str) -> Cell | None:
    kata = None
    while magic := _MAGIC.match(text.lstrip()):
        if magic[1] not in _PYTHON_MAGICS:
            return None
        if magic[1] == "kata":
            kata = magic[2].strip()
        text = text.lstrip()[magic.end() :]
    body = _parsed(text)
    if body is None:
        plain = _LINE.sub(r"\1pass", text)
        body = _parsed(plain)
        text = text if body is None else plain
    return Cell(text, kata, body)


def _parsed(text: str) -> list[ast.stmt] | None:
    try:
        return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def bound(statement: ast.stmt) -> set[str]:
    """The names that a statement at the top level binds."""
    names: set[str] = set()
    queue: list[ast.AST] = [statement]
    while queue:
        node = queue.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
            continue  # what it binds inside is its own
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
            # `Layer.forward = forward` and `table[3] = x` belong to what they complete.
            root: ast.AST = node
            while isinstance(root, (ast.Attribute, ast.Subscript)):
                root = root.value
            names |= {root.id} if isinstance(root, ast.Name) else set()
        queue += ast.iter_child_nodes(node)
    return names


def _used(statements: Sequence[ast.stmt]) -> set[str]:
    """The names of the module that statements look up, now or when they are called."""
    try:
        text = ast.unparse(ast.Module([*statements], []))
        module = symtable.symtable(text, "<cell>", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return {node.id for s in statements for node in ast.walk(s) if isinstance(node, ast.Name)}
    names = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_referenced()}
    tables = module.get_children()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        names |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
    return names


def katas(found: Sequence[Cell], names: Mapping[str, Sequence[str]]) -> list[str]:
    """The katas that a notebook answers, of these with the names each defines: those that cells
    name with `%%kata`, and those all of whose names it defines."""
    said = {cell.kata for cell in found if cell.kata is not None}
    return [
        slug
        for slug, wanted in names.items()
        if slug in said or all(any(c.defines(name) for c in found) for name in wanted)
    ]


def answer(found: Sequence[Cell], slug: str, names: Sequence[str]) -> str | None:
    """The source of the answer to a kata that defines these names, or None if there is none."""
    own = [cell for cell in found if cell.kata == slug]
    mine = own or [cell for cell in found if cell.kata is None]
    whole = [cell for cell in mine if all(cell.defines(name) for name in names)]
    if whole:
        chosen = whole[-1:]
    else:
        last = [[cell for cell in mine if cell.defines(name)][-1:] for name in names]
        chosen = [cell for cell in mine if any(cell in some for some in last)]
    chosen = chosen or own[-1:]
    if not chosen:
        return None
    at = next(number for number, cell in enumerate(found) if cell is chosen[-1])
    earlier = [cell for cell in found[:at] if not any(cell is one for one in chosen)]
    needs = list(_needed(earlier, chosen))
    future = "".join(f"{text}\n" for text in needs if text.startswith("from __future__"))
    rest = [text for text in needs if not text.startswith("from __future__")]
    pieces = [*rest, *(cell.text.rstrip() for cell in chosen)]
    return future + "\n\n".join(pieces) + "\n"


def _needed(earlier: Iterable[Cell], chosen: Iterable[Cell]) -> Iterator[str]:
    """Of the statements of earlier cells, in their order, those that the chosen cells need."""
    statements = [(one, cell) for cell in earlier for one in cell.body or ()]
    binds = [bound(one) for one, _ in statements]
    # A cell that cannot be parsed will not run either: then nothing is needed but its message.
    names = _used([one for cell in chosen for one in cell.body or ()])
    taken: set[int] = set()
    while more := {
        number
        for number, (one, _) in enumerate(statements)
        if number not in taken and (binds[number] & {*names, "*"} or _is_future(one))
    }:
        taken |= more
        names |= _used([statements[number][0] for number in more])
    for number in sorted(taken):
        one, cell = statements[number]
        marks: list[ast.expr] = getattr(one, "decorator_list", [])
        first = min([one.lineno, *(mark.lineno for mark in marks)])
        yield "\n".join(cell.text.split("\n")[first - 1 : one.end_lineno])


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
