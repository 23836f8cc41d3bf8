"""Katas in NumPy: what a file imports, arrays as evidence, and how they compare.

Probes are handed tensors and give the submission `x.numpy()`, which shares their memory: that a
call has changed an argument in place is seen like anywhere else.
"""

import ast
import sys
from collections.abc import Iterator

import torch

from grader.exam.checks import fail, near, require, tensor
from grader.exam.kit import Missing, need

F64 = torch.float64
BEYOND_NUMPY = "imports-more-than-numpy"

# On the stage


def sent(value):
    """A copy of an array, as evidence: it may be a view, read-only, or change later. What is no
    array goes as it is."""
    import numpy as np

    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    return torch.from_numpy(np.array(value, order="C"))


def written(owner, **values):
    """Write values into arrays of an object, in place."""
    import numpy as np

    kind = type(owner).__name__
    for name, value in values.items():
        target, shape = need(owner, name), tuple(value.shape)
        if not isinstance(target, np.ndarray):
            raise Missing(f"`{name}` of {kind} is no array but of type {type(target).__name__}")
        if target.shape != shape:
            raise Missing(f"`{name}` of {kind} has shape {target.shape}, expected {shape}")
        target[...] = value.numpy()
        if not np.array_equal(getattr(owner, name), value.numpy()):
            raise Missing(f"Writing `{name}[...] = v` of {kind} does not change `{name}`")


def imports_of(kata, build):
    import linecache

    build(kata)
    held = []
    for name, value in vars(kata).items():
        whole = isinstance(value, type(torch))
        owner = value.__name__ if whole else getattr(value, "__module__", None)
        if isinstance(owner, str):
            held.append((name, owner, whole))
    return "".join(linecache.getlines(kata.__file__)), held


# Judging


def numpy_only(stage, build):
    """The file imports NumPy and the standard library alone, wherever in it. build: a helper that
    begins with what is to be written, so that a stub is told from an answer."""
    text, held = stage(imports_of, build=build)
    require(text.strip(), "The source of the file cannot be read")
    for module, line in _imports(text):
        if not _allowed(module):
            fail(f"line {line} imports {module}", BEYOND_NUMPY)
    for name, owner, whole in held:
        if (whole and not _allowed(owner)) or _root(owner) == "torch":
            fail(f"`{name}` comes from {owner}", BEYOND_NUMPY)


def _imports(text) -> Iterator[tuple[str, int]]:
    """Modules that a source names in imports of any form, and where."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, node.lineno) for alias in names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name, node.lineno
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="__import__" | "import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name, node.lineno
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Attribute(value=ast.Name(id="sys"), attr="modules"), attr="get"
                ),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name, node.lineno
            case ast.Subscript(
                value=ast.Attribute(value=ast.Name(id="sys"), attr="modules"),
                slice=ast.Constant(value=str(name)),
            ):
                yield name, node.lineno


def _root(module):
    return module.partition(".")[0]


def _allowed(module):
    known = {"numpy", "__main__", *sys.stdlib_module_names}
    return _root(module) in known


def array(got, what):
    """`got` if it was an array; fails otherwise."""
    if got is None:
        fail(f"{what} is None, expected an array")
    if isinstance(got, (bool, int, float, str, list, tuple, dict)):
        fail(f"{what} should be an array, not {type(got).__name__}")
    return tensor(got, what)


def equals(got, want, what, unless=None, bug=None, **tolerance):
    """A float64 array, and what it should be; see `near`."""
    near(array(got, what), want, what=what, dtype=F64, unless=unless, bug=bug, **tolerance)
