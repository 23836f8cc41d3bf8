"""Flags asked in two ways: for files that nobody has read.

A submission runs where the probes ask it, and may answer for its parameters: a class of its own
whose `requires_grad` is a property, a `named_parameters` that leaves some out, a torch that was
replaced while nobody looked, work that is done where no counter sees it. So in the box probes are
`rewritten`: what they read of a tensor comes from torch's own descriptors, taken before the
submission was loaded, and what they read of a module from the dicts it holds, past every method and
property of a class. Each flag is asked in the ordinary way as well, and that the answers differ is
reported as tampering, as is all that is not what it was anywhere in torch; work is counted by
torch's profiler, too. Probes and their classes are made before the submission is loaded: which they
are is known from the solution, which is graded first.

What remains possible: code that finds this module's own objects in the memory of its process (by
frames, the garbage collector or ctypes) can change what is asked here, too. No sandbox stops that;
such sources are marked for a person to look at (`marks.py`). A loop in compiled code is not counted
where a kata may leave torch. Values are beyond all that: they are compared where none runs.
"""

import ast
import inspect
import itertools
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn as nn

from grader.exam import kit, surroundings

_OF_TENSORS = (
    "data_ptr",
    "device",
    "dtype",
    "grad",
    "grad_fn",
    "is_leaf",
    "is_meta",
    "ndim",
    "requires_grad",
    "shape",
    "stride",
)
_OF_MODULES = (
    "buffers",
    "children",
    "modules",
    "named_buffers",
    "named_children",
    "named_modules",
    "named_parameters",
    "parameters",
    "training",
)
_ASKED = {*_OF_TENSORS, *_OF_MODULES}
_FLAGS = {"is_leaf", "is_meta", "requires_grad", "training"}  # and whether there is a grad
_MATMULS = ("mm", "addmm", "bmm", "baddbmm")
_MODE = "PythonDispatchMode"
_TELL = "_asked"  # two underscores would be mangled in a class
_MAX_NAMES = 20


# In the examiner: the probes' code


class _Rewriter(ast.NodeTransformer):
    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr not in _ASKED or not isinstance(node.ctx, ast.Load):
            return node
        name = ast.Name(_TELL, ast.Load())
        call = ast.Call(name, [node.value, ast.Constant(node.attr)], [])
        return ast.copy_location(call, node)


def rewritten(source: str, filename: str) -> types.CodeType:
    """The code of a probe that asks in two ways; lines are those of the source."""
    tree = ast.fix_missing_locations(_Rewriter().visit(ast.parse(source)))
    return compile(tree, filename, "exec", dont_inherit=True)


# On the stage: taken before a submission is loaded

_mro = vars(type)["__mro__"].__get__
_dict_of = vars(nn.Module)["__dict__"].__get__
_items = dict.items
_as_plain = torch._C.DisableTorchFunction
_tensor = {name: inspect.getattr_static(torch.Tensor, name).__get__ for name in _OF_TENSORS}
_Tensor, _Module, _Parameter = torch.Tensor, nn.Module, nn.Parameter
_getattr, _isinstance = getattr, isinstance


_lies: set[str] = set()


def ask(value: Any, name: str) -> Any:
    """What `tell` does, which is noted if the ordinary answer is another."""
    told = tell(value, name)
    if name in _FLAGS or name == "grad":
        said = _getattr(value, name, None)
        if said is not told and (name in _FLAGS or (said is None) != (told is None)):
            _lies.add(f"{type(value).__name__}.{name}")
    return told


def tell(value: Any, name: str) -> Any:
    """`value.name`, past what a class of the submission's says of itself."""
    kinds = _mro(type(value))
    if name in _tensor and _Tensor in kinds:
        with _as_plain():
            told = _tensor[name](value)
        if not callable(told) or isinstance_(told, torch.dtype):
            return told

        def plainly(*args: Any, **kwargs: Any) -> Any:
            with _as_plain():
                return told(*args, **kwargs)

        return plainly
    if name in _walks and _Module in kinds:
        return _walks[name](value)
    return _getattr(value, name)


def isinstance_(value: Any, kinds: Any) -> bool:
    """isinstance, by the class that a value is of and not the one that it names."""
    if type(kinds) is tuple:
        return any(isinstance_(value, kind) for kind in kinds)
    mro = _mro(type(value))
    if kinds is _Parameter and _Tensor in mro and _Parameter not in mro:
        return bool(_getattr(value, "_is_param", False))
    if type(kinds) is type or kinds in (_Tensor, _Parameter):
        return kinds in mro
    return _isinstance(value, kinds)


def _held(module: Any, table: str) -> list[tuple[str, Any]]:
    """What a module holds, by name, without what is None."""
    held = _dict_of(module).get(table) or {}
    return [(name, value) for name, value in _items(held) if value is not None]


def _below(module: Any, prefix: str, seen: set[int] | None) -> Iterator[tuple[str, Any]]:
    if seen is not None:
        if id(module) in seen:
            return
        seen.add(id(module))
    yield prefix, module
    for name, child in _held(module, "_modules"):
        yield from _below(child, f"{prefix}.{name}" if prefix else name, seen)


def _named_modules(module: Any) -> Callable[..., Iterator[tuple[str, Any]]]:
    def walk(
        memo: Any = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        yield from _below(module, prefix, set() if remove_duplicate else None)

    return walk


def _named(module: Any, table: str) -> Callable[..., Iterator[tuple[str, Any]]]:
    def walk(
        prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        visited: set[int] | None = set() if remove_duplicate else None
        places = _below(module, prefix, visited) if recurse else [(prefix, module)]
        for path, owner in places:
            for name, value in _held(owner, table):
                if not remove_duplicate or id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    return walk


def _named_children(module: Any) -> Callable[..., Iterator[tuple[str, Any]]]:
    def walk() -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for name, child in _held(module, "_modules"):
            if id(child) not in seen:
                seen.add(id(child))
                yield name, child

    return walk


def _nameless(
    named: Callable[[Any], Callable[..., Iterator[tuple[str, Any]]]],
) -> Callable[[Any], Callable[..., Iterator[Any]]]:
    def of(module: Any) -> Callable[..., Iterator[Any]]:
        def walk(*args: Any, **kwargs: Any) -> Iterator[Any]:
            takes_recurse = args and {"recurse": args[0]}
            for _, value in named(module)(**(takes_recurse or {}), **kwargs):
                yield value

        return walk

    return of


def _parameters(module: Any) -> Callable[..., Iterator[tuple[str, Any]]]:
    return _named(module, "_parameters")


def _buffers(module: Any) -> Callable[..., Iterator[tuple[str, Any]]]:
    return _named(module, "_buffers")


_walks: dict[str, Callable[[Any], Any]] = {
    "buffers": _nameless(_buffers),
    "children": _nameless(_named_children),
    "modules": _nameless(_named_modules),
    "named_buffers": _buffers,
    "named_children": _named_children,
    "named_modules": _named_modules,
    "named_parameters": _parameters,
    "parameters": _nameless(_parameters),
    "training": lambda module: _dict_of(module)["training"],
}


def _asking_kit(scope: dict[str, Any]) -> dict[str, Any]:
    """The probes' helpers, asking in two ways; their own names are in `scope`."""
    scope |= {
        "__name__": kit.__name__,
        "isinstance": isinstance_,
        _TELL: ask,
    }
    exec(rewritten(inspect.getsource(kit), kit.__file__), scope)
    first_count, missing = scope["count"], scope["Missing"]

    def count(call: Callable[[], Any]) -> dict[str, int]:
        """kit.count; raises Missing, too, where torch's profiler sees more than the counter: of
        this call, or of another that is not counted."""
        counted: dict[str, int] = {}
        records = _recorded(lambda: counted.update(first_count(call)))
        if tells and _uncounted(records):
            raise missing("A part of the work is done where it is not counted")
        if tells and len(_recorded(call)) > len(records):
            raise missing("More is done where nobody counts than where it is counted")
        return counted

    ones = torch.ones(2, 2)
    # The profiler of another version may not tell of modes.
    tells = not _uncounted(_recorded(lambda: first_count(lambda: ones @ ones)))

    scope["count"] = count
    return {**{name: scope[name] for name in kit.__all__}, "isinstance": isinstance_, _TELL: ask}


def _recorded(call: Callable[[], Any]) -> list[tuple[str, str]]:
    """What torch's profiler saw of a call, thread after thread: ("push", operator) where one
    begins, ("pop", "") where one ends. Its public front takes a hundred times as long to read
    that."""
    autograd: Any = torch.autograd  # whose stubs know nothing of this
    options = torch._C._profiler._ExperimentalConfig()
    state = autograd.ProfilerState.CPU
    autograd._enable_profiler_legacy(
        autograd.ProfilerConfig(state, False, False, False, False, False, options)
    )
    try:
        call()
    finally:
        records = autograd._disable_profiler_legacy()
    return [(record.kind(), record.name()) for thread in records for record in thread]


def _uncounted(records: list[tuple[str, str]]) -> bool:
    """Whether there is a matrix product of which a dispatch mode saw nothing: neither what it is
    part of nor a part of it."""
    running: list[list[Any]] = []  # an operator, and whether a mode saw it or a part of it
    within = 0
    for kind, name in records:
        if kind == "push":
            if name == _MODE:
                within += 1
                for operator in running:
                    operator[1] = True
            running.append([name, within > 0])
        elif kind == "pop" and running:
            ended, seen = running.pop()
            within -= ended == _MODE
            if not seen and ended.removeprefix("aten::") in _MATMULS:
                return True
    return False


class Asking:
    """What a stage needs to ask in two ways; made once, before stages are forked."""

    def __init__(self) -> None:
        self._scope: dict[str, Any] = {}
        self.names = _asking_kit(self._scope)
        self.watched = surroundings.remember(surroundings.all_of_torch())

    def begin(self) -> None:
        """On a stage, before the submission is loaded: what is there now is as it should be."""
        self._scope["threads_at_rest"] = kit.threads_at_rest
        self.written = surroundings.Written(self._scope, globals(), _tensor, _walks)
        for watch, *_ in self.watched:
            watch.seen()

    def replaced(self) -> list[str]:
        """Names in torch, and in what of Python probes may use, that are not what they were."""
        return list(itertools.islice(surroundings.changed(self.watched), _MAX_NAMES))

    def lies(self) -> list[str]:
        """Flags, such as "Frozen.requires_grad", that a class has answered falsely."""
        return sorted(_lies)[:_MAX_NAMES]
