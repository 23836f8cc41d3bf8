"""What may be told of a kata before it is solved: its contract and the rules that are checked."""

import ast

from grader import content
from grader.practice import stubs


def outline(slug: str) -> str:
    """Signatures and docstrings of the stub, without imports and bodies."""
    tree = ast.parse(stubs.stub(slug))
    tree.body = [
        node
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) or _is_text(node)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body = [n for n in node.body if _is_text(n)] or [ast.Expr(ast.Constant(...))]
    return ast.unparse(tree)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def rules(slug: str) -> dict[str, list[str]]:
    """The checked rules by part, read from the suite's docstrings without running it."""
    found: dict[str, list[str]] = {}
    for node in ast.parse(content.suite(slug).read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            match mark:
                case ast.Call(func=ast.Name(id="part"), args=[ast.Constant(value=str(name))]):
                    found.setdefault(name, []).append(ast.get_docstring(node) or node.name)
    return found
