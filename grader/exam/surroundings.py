"""What stands around a submission on the stage: what it may change and gets put back, what a call
must leave as it found it, and what the probes rely on.

All is remembered before the submission is loaded.
"""

import builtins
import contextlib
import copy
import ctypes
import functools
import gc
import math
import operator
import os
import random
import signal
import sys
import types
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.modules import module as nn_module
from torch.utils import _python_dispatch, _pytree, flop_counter

from grader.exam import kit

_HOOKS = [
    table
    for name, table in vars(nn_module).items()
    if name.startswith("_global_") and isinstance(table, dict)
]
# Modules and classes whose every name must stay what it was, and how a message calls them.
_RELIED_ON: list[tuple[str, Any]] = [
    ("torch", torch),
    ("torch.nn", nn),
    ("torch.nn.functional", F),
    ("torch.nn.init", nn.init),
    ("torch.linalg", torch.linalg),
    ("torch.autograd", torch.autograd),
    ("torch.utils.flop_counter", flop_counter),
    ("torch.utils._python_dispatch", _python_dispatch),
    ("torch.utils._pytree", _pytree),
    ("copy", copy),
    ("math", math),
    ("the probes' helpers", kit),
    ("torch.Tensor", torch.Tensor),
    *(
        (f"nn.{kind.__name__}", kind)
        for kind in (
            nn.Parameter,
            nn.Module,
            nn.Linear,
            nn.Embedding,
            nn.LayerNorm,
            nn.Dropout,
            nn.Identity,
            nn.Sequential,
            nn.ModuleList,
            nn.ModuleDict,
        )
    ),
]
_TELLING = {
    "builtins",
    "collections",
    "copy",
    "functools",
    "inspect",
    "itertools",
    "math",
    "operator",
    "types",
}
_UNSHOWN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
_TORCH_FOLDER = os.path.dirname(torch.__file__) + os.sep
# Written into a class by Python itself, at a deep copy or when annotations are asked for.
_PYTHONS_OWN = {"__slotnames__", "__annotations__", "__abstractmethods__", "__doc__"}


class _Watch:
    """Whether a dict was written to since it was last `seen`, from the number that CPython writes
    into it at each change: to compare its values would bring each into the processor's cache,
    which takes longer than most probes. Where dicts bear no such number (from 3.14 on), it may
    always have been."""

    def __init__(self, watched: Any) -> None:
        if isinstance(watched, types.MappingProxyType):  # of a class: what it stands before
            (watched,) = gc.get_referents(watched)
        self.watched = watched
        place = id(watched) + object.__basicsize__ + ctypes.sizeof(ctypes.c_ssize_t)
        self._version = ctypes.c_uint64.from_address(place)
        self._seen = -1

    def seen(self) -> None:
        self._seen = self._version.value if _VERSIONS else -1

    def written(self) -> bool:
        return not _VERSIONS or self._version.value != self._seen


def _bear_versions() -> bool:
    """Whether the number changes at every write, and at nothing else."""
    one: dict[str, Any] = {"a": 1}
    watch = _Watch(one)
    steps: list[tuple[Callable[..., Any], Any, bool]] = [
        (one.get, "a", False),
        (one.update, {"a": 1}, False),
        (one.update, {"a": 2}, True),
        (one.update, {"a": 1}, True),
        (one.update, {"b": 1}, True),
        (one.pop, "b", True),
    ]
    for step, argument, writes in steps:
        before = watch._version.value
        step(argument)
        if (watch._version.value != before) != writes:
            return False
    return True


_VERSIONS = sys.implementation.name == "cpython" and _bear_versions()


class Written:
    """Whether a dict in which probes find what they call, or a function in it, was written to since
    this was made; a name that was put back counts, too, where dicts bear a number."""

    def __init__(self, *dicts: dict[str, Any]) -> None:
        for one in dicts:
            one.setdefault("__warningregistry__", {})  # which a warning would write
        self._held = [(_Watch(one), tuple(one.values())) for one in dicts]
        for watch, _ in self._held:
            watch.seen()
        self._functions = [
            (value, value.__code__, value.__defaults__)
            for _, values in self._held
            for value in values
            if type(value) is types.FunctionType
        ]

    def __bool__(self) -> bool:
        return any(
            watch.written() and (_VERSIONS or not _same(watch.watched.values(), values))
            for watch, values in self._held
        ) or any(
            one.__code__ is not code or one.__defaults__ is not defaults
            for one, code, defaults in self._functions
        )


def _same(now: Collection[Any], before: Collection[Any]) -> bool:
    return len(now) == len(before) and all(map(operator.is_, now, before))


_Remembered = list[tuple[_Watch, str, Any, tuple[str, ...], tuple[Any, ...]]]


def remember(owners: Iterable[tuple[str, Any]]) -> _Remembered:
    """What modules and classes hold, each with the words for it in a message."""
    return [
        (_Watch(vars(owner)), words, owner, tuple(vars(owner)), tuple(vars(owner).values()))
        for words, owner in owners
    ]


def all_of_torch() -> Iterator[tuple[str, Any]]:
    """Every module of torch that is loaded with the classes it defines, and modules of Python that
    tell what something is."""
    for name, module in sorted(sys.modules.items()):
        if name in _TELLING or name.partition(".")[0] == "torch":
            if type(module) is not types.ModuleType:
                continue
            yield name, module
            for value in list(vars(module).values()):
                if issubclass(type(value), type) and vars(value).get("__module__") == name:
                    yield f"{name}.{value.__qualname__}", value


def changed(remembered: _Remembered) -> Iterator[str]:
    """Names of what can be called, of those that were remembered, that are not what they were."""
    for watch, words, owner, names, values in remembered:
        if not watch.written():
            continue
        now, same = vars(owner), True
        if not _same(now.values(), values) and not all(
            map(operator.is_, map(now.get, names), values)
        ):
            for name, was in zip(names, values):
                if now.get(name) is not was and callable(was) and not _torchs(now.get(name)):
                    same = False
                    yield f"{words}.{name}"
        if isinstance(owner, type) and len(now) > len(names):
            added = (now.keys() - names) & _taken()
            if added and issubclass(owner, (torch.Tensor, nn.Module)):
                same = False
                yield f"{words}.{min(added)}"
        if same:
            watch.seen()


@functools.cache
def _taken() -> set[str]:
    """Names that a layer or its weight has: to add one to a class hides what is there."""
    linear = nn.Linear(1, 1)
    return {*dir(linear), *dir(linear.weight)} - _PYTHONS_OWN


@functools.cache
def ready() -> _Remembered:
    """What the probes rely on; a nursery remembers it before it forks, for all of its stages."""
    _taken()
    names = remember(_RELIED_ON)
    for watch, *_ in names:
        watch.seen()
    return names


class Surroundings:
    """Remembers at its making; `restore` before every probe, `left` and `replaced` after."""

    def __init__(self) -> None:
        self.modules = dict(sys.modules)
        self.builtins = dict(vars(builtins))
        self._all_modules, self._all_builtins = _Watch(sys.modules), _Watch(vars(builtins))
        self._path, self._meta_path = list(sys.path), list(sys.meta_path)
        self._environ = dict(os.environ)
        self._environ_bytes = dict(_bytes(os.environ))
        self._cwd = os.getcwd()
        self._recursion = sys.getrecursionlimit()
        self._streams = sys.stdout, sys.stderr
        self._names = ready()
        if any(watch.written() for watch, *_ in self._names):
            self._names = remember(_RELIED_ON)
        self._warnings: list[Any] = []
        self._formulas = dict(flop_counter.flop_registry)
        self._state = dict(_state())

    def restore(self, seed: int) -> None:
        """Put back what may have been changed, and seed what draws numbers."""
        self.restore_builtins()
        modules = self._all_modules
        if modules.written() or sys.modules is not modules.watched:
            sys.modules.update(self.modules)
            modules.seen()
        sys.path[:], sys.meta_path[:] = self._path, self._meta_path
        if _bytes(os.environ) != self._environ_bytes:
            os.environ.clear()
            os.environ.update(self._environ)
        with contextlib.suppress(OSError):
            os.chdir(self._cwd)
        if not self._warnings or warnings.filters != self._warnings:
            # A warning is no error, whatever the caller or the file has set.
            warnings.resetwarnings()
            for kind in _UNSHOWN:
                warnings.simplefilter("ignore", kind)
            warnings.filterwarnings("ignore", module=r"torch(\.|$)")  # torch's own affair
            self._warnings = list(warnings.filters)
        sys.settrace(None)
        sys.setprofile(None)
        sys.setrecursionlimit(self._recursion)
        sys.stdout, sys.stderr = self._streams
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
        for pop, given, count in (
            (torch._C._pop_torch_dispatch_stack, (None,), torch._C._len_torch_dispatch_stack),
            (torch._C._pop_torch_function_stack, (), torch._C._len_torch_function_stack),
        ):
            while count():
                pop(*given)
        for table in _HOOKS:
            if table:
                table.clear()
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        torch.set_autocast_enabled("cpu", False)
        torch.autograd.set_detect_anomaly(False)
        torch._C._set_deterministic_algorithms(False)  # the public one imports the compiler
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed keeps a stack of each call
        for device in (torch.cuda, torch.xpu):
            if device.is_initialized():
                device.manual_seed_all(seed)
        random.seed(seed)
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            numpy_random.seed(seed % 2**32)

    def restore_builtins(self) -> None:
        if self._all_builtins.written():
            self._all_builtins.watched.update(self.builtins)
            self._all_builtins.seen()

    def left(self) -> list[str]:
        """What of torch's global state is no more as a probe finds it."""
        return [name for name, value in _state() if value != self._state[name]]

    def replaced(self) -> str | None:
        """The first name found that the probes rely on and that is not what it was."""
        first = next(changed(self._names), None)
        if first is not None:
            return first
        if flop_counter.flop_registry != self._formulas:
            return "torch.utils.flop_counter.flop_registry"
        return None


def _bytes(environ: Any) -> Any:
    """What os.environ holds, without decoding it."""
    return getattr(environ, "_data", environ)


def _torchs(value: Any) -> bool:
    """Whether torch itself has put it there: a function of its files (its compiler does that when
    loaded), or one of its storage classes (the default dtype decides which)."""
    if isinstance(value, type):
        return issubclass(value, torch.TypedStorage) and value in torch._storage_classes
    code = getattr(value, "__code__", None)
    return isinstance(code, types.CodeType) and code.co_filename.startswith(_TORCH_FOLDER)


def _state() -> Iterator[tuple[str, Any]]:
    """torch's global state, as `Surroundings.restore` leaves it between probes."""
    yield "grad mode", torch.is_grad_enabled()
    yield "inference mode", torch.is_inference_mode_enabled()
    yield "the default dtype", torch.get_default_dtype()
    yield "function modes (a default device is one)", torch._C._len_torch_function_stack()
    yield "dispatch modes", torch._C._len_torch_dispatch_stack()
    yield "autocast", torch.is_autocast_enabled("cpu")
    yield "anomaly detection", torch.is_anomaly_enabled()
    yield "deterministic algorithms", torch._C._get_deterministic_algorithms()
    yield "the number of threads", torch.get_num_threads()
    yield "global module hooks", sum(map(len, _HOOKS))
