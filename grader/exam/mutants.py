"""Small edits of a solution, each of which a suite should catch.

A mutant that passes computes the same, breaks nothing that the contract names, or shows a hole in
the suite. Only what stands between the solution's markers is edited.
"""

import ast
import copy
import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Div, ast.Mult),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt,),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt,),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_NOT_COMMUTATIVE = (ast.MatMult, ast.Sub, ast.Div)
# Methods that a tired hand leaves out.
_DROPPED = {
    *("detach", "clone", "contiguous", "to", "double", "float", "long", "int", "requires_grad_"),
    *("squeeze", "unsqueeze", "flatten", "reshape", "view", "clamp", "abs", "sum", "round", "sqrt"),
    *("eval", "train", "masked_fill"),
}
_PAIRS = [
    ("lora_A", "lora_B"),
    ("in_features", "out_features"),
    ("down_proj", "up_proj"),
    ("sublayer", "adapter"),
    ("zeros", "ones"),
    ("new_zeros", "new_ones"),
    ("zeros_like", "ones_like"),
    ("min", "max"),
    ("amin", "amax"),
    ("argmin", "argmax"),
    ("any", "all"),
    ("floor", "ceil"),
]
_SWAPPED = dict(_PAIRS) | {other: one for one, other in _PAIRS}
_STATEMENTS = (
    ast.Expr,
    ast.Assign,
    ast.AugAssign,
    ast.AnnAssign,
    ast.Raise,
    ast.If,
    ast.For,
    ast.With,
    ast.Return,
    ast.Continue,
    ast.Break,
    ast.Delete,
)
# What an edit makes of a node (on a copy): another node, or None where it has changed the node.
_Edit = Callable[[ast.AST], ast.AST | None]


@dataclass(frozen=True)
class Mutant:
    """One edit: the source with it, and the changed lines as `old => new`."""

    source: str
    edit: str


def of(solution: str) -> Iterator[Mutant]:
    """Every edit of a solution, each source once."""
    lines = solution.splitlines()
    inside = _answer_lines(lines)
    tree = ast.parse(solution)
    whole = ast.unparse(tree)
    seen = {whole}
    for place, node in enumerate(ast.walk(tree)):
        for line, edit in _edits(node):
            if line not in inside:
                continue
            mutated: ast.AST = copy.deepcopy(tree)
            target = next(n for i, n in enumerate(ast.walk(mutated)) if i == place)
            try:
                new = edit(target)
                if new is not None:
                    mutated = _Replaced(target, new).visit(mutated)
                source = ast.unparse(ast.fix_missing_locations(mutated))
                compile(source, "mutant", "exec")
            except (SyntaxError, ValueError, TypeError, AttributeError):
                continue  # an edit that is no Python
            if source not in seen:
                seen.add(source)
                yield Mutant(source, _changed(whole, source))


def _answer_lines(lines: list[str]) -> set[int]:
    found, inside = set(), False
    for number, line in enumerate(lines, 1):
        inside = (inside or "BEGIN SOLUTION" in line) and "END SOLUTION" not in line
        if inside:
            found.add(number)
    return found


def _changed(before: str, after: str) -> str:
    diff = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))
    old, new = (
        " ".join(line[1:].strip() for line in diff[2:] if line.startswith(sign)) for sign in "-+"
    )
    return f"{old} => {new}"


class _Replaced(ast.NodeTransformer):
    def __init__(self, target: ast.AST, new: ast.AST) -> None:
        self._target, self._new = target, new

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._target:
            return self._new
        return super().generic_visit(node)


def _edits(node: ast.AST) -> Iterator[tuple[int, _Edit]]:
    """The edits of one node, each with the line it is at."""
    for edit in (*_of_expression(node), *_of_call(node), *_of_name(node)):
        line = getattr(node, "lineno", None)
        if isinstance(node, ast.comprehension):
            line = node.target.lineno
        if line is not None:
            yield line, edit
    for field in ("body", "orelse"):
        block = getattr(node, field, None)
        for at, statement in enumerate(block if isinstance(block, list) else ()):
            docstring = isinstance(statement, ast.Expr) and isinstance(
                statement.value, ast.Constant
            )
            if isinstance(statement, _STATEMENTS) and not docstring:
                yield statement.lineno, _setting_item(field, at, ast.Pass())


def _of_expression(node: ast.AST) -> Iterator[_Edit]:
    match node:
        case ast.BinOp():
            for operator in _OPERATORS.get(type(node.op), ()):
                yield _setting("op", operator())
            if isinstance(node.op, _NOT_COMMUTATIVE):
                yield _swapping("left", "right")
            yield lambda n: n.left  # type: ignore[attr-defined]
            yield lambda n: n.right  # type: ignore[attr-defined]
        case ast.AugAssign():
            for operator in _OPERATORS.get(type(node.op), ()):
                yield _setting("op", operator())
        case ast.Compare():
            for comparison in _COMPARISONS.get(type(node.ops[0]), ()):
                yield _setting_item("ops", 0, comparison())
        case ast.BoolOp():
            yield _setting("op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
            for at in range(len(node.values)):
                yield _popping("values", at)
        case ast.UnaryOp():
            yield lambda n: n.operand  # type: ignore[attr-defined]
        case ast.Constant():
            for value in _other_values(node.value):
                yield _setting("value", value)
        case ast.If() | ast.IfExp() | ast.While():
            for value in (True, False):
                yield _setting("test", ast.Constant(value))
        case ast.comprehension():
            for at in range(len(node.ifs)):
                yield _popping("ifs", at)
        case ast.With():
            yield lambda n: ast.If(ast.Constant(True), n.body, [])  # type: ignore[attr-defined]
        case ast.FunctionDef():
            for at in range(len(node.decorator_list)):
                yield _popping("decorator_list", at)
        case ast.Tuple() | ast.List() if isinstance(node.ctx, ast.Load) and len(node.elts) == 2:
            yield lambda n: n.elts.reverse()  # type: ignore[attr-defined]


def _of_call(node: ast.AST) -> Iterator[_Edit]:
    if not isinstance(node, ast.Call):
        return
    method = isinstance(node.func, ast.Attribute)
    if isinstance(node.func, ast.Attribute) and node.func.attr in _DROPPED:
        yield lambda n: n.func.value  # type: ignore[attr-defined]
    for at in range(len(node.keywords)):
        yield _popping("keywords", at)
    if len(node.args) == 2:
        yield lambda n: n.args.reverse()  # type: ignore[attr-defined]
    if len(node.args) == 1 and method:
        yield lambda n: n.args[0]  # type: ignore[attr-defined]
    if len(node.args) > 1:
        yield _popping("args", len(node.args) - 1)


def _of_name(node: ast.AST) -> Iterator[_Edit]:
    match node:
        case ast.Attribute(attr="T" | "mT"):
            yield lambda n: n.value  # type: ignore[attr-defined]
        case ast.Attribute() if node.attr in _SWAPPED:
            yield _setting("attr", _SWAPPED[node.attr])
        case ast.Name(ctx=ast.Load()) if node.id in _SWAPPED:
            yield _setting("id", _SWAPPED[node.id])


def _other_values(value: object) -> list[object]:
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, value - 1, *([0] if value not in (0, 1, -1) else [])]
        case float():
            return [value * 2, value * 0.5, 0.0]
    return []


def _setting(field: str, value: object) -> _Edit:
    return lambda node: setattr(node, field, copy.deepcopy(value))


def _setting_item(field: str, at: int, value: object) -> _Edit:
    def edit(node: ast.AST) -> None:
        getattr(node, field)[at] = copy.deepcopy(value)

    return edit


def _swapping(one: str, other: str) -> _Edit:
    def edit(node: ast.AST) -> None:
        left, right = getattr(node, one), getattr(node, other)
        setattr(node, one, right)
        setattr(node, other, left)

    return edit


def _popping(field: str, at: int) -> _Edit:
    """Drop one of several; of two terms the other stands alone."""

    def edit(node: ast.AST) -> ast.AST | None:
        items = getattr(node, field)
        if field == "values" and len(items) == 2:
            rest: ast.AST = items[1 - at]
            return rest
        items.pop(at)
        return None

    return edit
