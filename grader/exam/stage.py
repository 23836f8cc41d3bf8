"""The child process in which the learner's code runs.

It loads one submission, then runs one probe at a time beside it and sends back evidence. It
decides nothing. Whatever happens here, the examiner reads only bounded, plain data.
"""

import _thread
import ast
import contextlib
import difflib
import dis
import functools
import importlib.abc
import linecache
import marshal
import os
import resource
import socket
import sys
import time
import traceback
import types
from collections.abc import Sequence
from typing import Any

import torch

from grader.exam import kit, source_text, wire
from grader.exam.quiet import QuietImports
from grader.exam.surroundings import Surroundings, Written

PROBE_FILE = "<probe>"
OUT_OF_MEMORY_EXIT = 77
_FILE_BYTES = 64 << 20
_THREAD_GRACE_S = 0.25
_ARGUMENT_CHARS = 200
_RAISE = dis.opmap["RAISE_VARARGS"]


class _NoGrader(importlib.abc.MetaPathFinder):
    """Keeps the grader's own packages out of a submission's reach."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name.partition(".")[0] in ("grader", "solutions"):
            raise ImportError(f"a submission cannot import '{name}'", name=name)


QUIT = "bdb.BdbQuit"  # what a debugger raises that is left, or has nobody to talk to


def no_debugger(*_: Any, **__: Any) -> None:
    """What `breakpoint()` does where nobody sits at a terminal."""
    import bdb

    raise bdb.BdbQuit


def is_quit(error: BaseException) -> bool:
    return f"{type(error).__module__}.{type(error).__qualname__}" == QUIT


def serve(sock: socket.socket, kind: "type[Stage] | None" = None) -> None:
    """Answer requests until the examiner hangs up; `kind` may be a Stage that does more."""
    torch.set_num_threads(1)
    for name in [n for n in sys.modules if n.partition(".")[0] in ("grader", "solutions")]:
        del sys.modules[name]
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path[:] = [p for p in sys.path if p and os.path.abspath(p) != here]
    sys.meta_path[:0] = [_NoGrader(), QuietImports()]
    sys.argv[:] = [""]
    stage = (kind or Stage)()
    while True:
        try:
            request = wire.receive(sock)
        except EOFError:
            return
        reply = stage.answer(request)
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        sock.sendall(reply)


def limit(memory_bytes: int | None) -> None:
    """Limit what this process may take, beyond what it holds already."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    if memory_bytes is not None and sys.platform == "linux":
        with open("/proc/self/statm") as file:
            start = int(file.read().split()[0]) * resource.getpagesize()
        limit = start + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@functools.cache
def asking_in_two_ways() -> Any:
    """What asks in two ways (exam/asking.py); a nursery makes it before it forks."""
    from grader.exam.asking import Asking

    return Asking()


class Stage:
    def __init__(self) -> None:
        self.around = Surroundings()
        self.module = types.ModuleType("submission")
        self.filename = "submission"
        # The count goes on from that of the process we were forked from; its threads did not.
        self.inherited = kit.threads_at_rest = _thread._count()
        self.answered = False  # whether any of what the stub leaves open is written
        self.asking: Any = None  # what asks in two ways, on a stage that does
        self.told: list[_Told] = []  # probes, by number
        # The names of probes made before the file is loaded; nobody is to write to them.
        self.scopes: dict[int, tuple[dict[str, Any], Written]] = {}
        self.written: list[Written] = []  # to what the latest probe uses

    def answer(self, request: dict[str, Any]) -> bytes:
        """One encoded reply, which protocol.Reply describes."""
        try:
            self.around.restore(request["seed"])
            self.told += map(_Told, request.get("tell", ()))
            # Inference mode may have been left on; it does not reach the probe.
            with torch.inference_mode(False):
                if request["op"] == "load":
                    result = self._load(**request["load"])
                elif request["op"] == "probe":
                    result = self._probe(**request["probe"])
                else:  # a last look around
                    result = {}
        except BaseException as error:
            result = self._raised(error)
        tampered = self.asking.lies() if self.asking else []
        if self.asking and request["op"] != "probe":
            tampered += self.asking.replaced()
        self.around.restore_builtins()
        result["replaced"] = self.around.replaced()
        if any(self.written):
            result["replaced"] = "the probes' own names"
        result["threads"] = self._threads()
        try:
            return wire.encode({"id": request["id"], "tampered": tampered, **result})
        except BaseException as error:
            text = str(error) if isinstance(error, wire.WireError) else "evidence cannot be read"
            return wire.encode({"id": request["id"], "unsendable": text})

    def _load(
        self,
        slug: str,
        filename: str,
        source: bytes,
        defines: Sequence[str],
        two_ways: bool,
    ) -> dict[str, Any]:
        """Load the source. With `two_ways` the probes told of are made before: they ask so."""
        self.filename = filename
        if two_ways:
            self.asking = asking_in_two_ways()
            self.scopes = {number: self._scope(told) for number, told in enumerate(self.told)}
            self.asking.begin()
            self.written = [self.asking.written]
        self.module = module = types.ModuleType(slug)
        module.__file__ = filename
        if not source.strip():
            return _trouble("missing", "The file is empty.")
        text = source_text.decoded(source)
        if isinstance(text, source_text.Unreadable):
            return _trouble("syntax", text.message)
        try:
            code = compile(source, filename, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return _trouble("syntax", _syntax(error))
        linecache.cache[filename] = (len(source), None, text.splitlines(keepends=True), filename)
        self.answered = _answered(text, defines)
        sys.modules[slug] = module
        try:
            exec(code, vars(module))
        except Exception as error:
            kind = "memory" if _is_memory(error) else "breakpoint" if is_quit(error) else "import"
            return _trouble(kind, "The file cannot be loaded.\n" + self._story(error))
        missing = [name for name in defines if name not in vars(module)]
        if missing:
            return _trouble("missing", _what_is_there(missing, vars(module)))
        self.around.modules[slug] = module
        return {}

    def _probe(
        self,
        name: str,
        told: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        helpers: dict[str, str],
    ) -> dict[str, Any]:
        linecache.cache[PROBE_FILE] = self.told[told].lines
        scope, written = self.scopes.get(told) or self._scope(self.told[told])
        self.written = [written, *([self.asking.written] if self.asking else [])]
        probe = scope[name]
        kwargs |= {word: scope[helper] for word, helper in helpers.items()}
        words = probe.__code__.co_varnames[1 : 1 + len(args)]
        given = _Given({**dict(zip(words, args)), **kwargs})
        result: dict[str, Any]
        try:
            result = {"evidence": probe(self.module, *args, **kwargs)}
        except BaseException as error:
            result = self._raised(error)
        return {**result, "left": self.around.left(), "changed": given.changed()}

    def _scope(self, told: "_Told") -> tuple[dict[str, Any], Written]:
        """The names of a probe's module, and whether they are written to from now on."""
        scope: dict[str, Any] = {n: getattr(kit, n) for n in kit.__all__}
        if self.asking:
            scope.update(self.asking.names)
        scope.update(told.values, __name__=PROBE_FILE, __builtins__=dict(self.around.builtins))
        exec(told.code, scope)
        return scope, Written(scope, scope["__builtins__"])

    def _threads(self) -> int:
        """How many threads run on after a moment's grace."""
        deadline = time.monotonic() + _THREAD_GRACE_S
        while _thread._count() > self.inherited and time.monotonic() < deadline:
            time.sleep(0.005)
        return _thread._count() - self.inherited

    def _raised(self, error: BaseException) -> dict[str, Any]:
        names = [f"{c.__module__}.{c.__qualname__}" for c in type.mro(type(error))]
        return {
            "raised": {
                "types": names,
                "text": _text(error),
                "story": self._story(error),
                "missing": isinstance(error, kit.Missing),
                "unwritten": not self.answered and self._open(error) is not None,
                "deliberate": self._deliberate(error) is not None,
                "memory": _is_memory(error),
            }
        }

    def _deliberate(self, error: BaseException) -> types.TracebackType | None:
        """Where a `raise` (or `assert`) of the file made this exception, if one did."""
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        if last is None or last.tb_frame.f_code.co_filename != self.filename:
            return None
        return last if last.tb_frame.f_code.co_code[last.tb_lasti] == _RAISE else None

    def _open(self, error: BaseException) -> types.TracebackType | None:
        """Where the file itself says that something is not written; torch says it too, of what
        it has no kernel for."""
        return self._deliberate(error) if isinstance(error, NotImplementedError) else None

    def _story(self, error: BaseException) -> str:
        """The exception, the learner's frames, and the probe's call with its shapes."""
        text = _text(error)
        if isinstance(error, kit.Missing):
            return text
        if (at := self._open(error)) is not None:
            name = at.tb_frame.f_code.co_qualname
            return f"`{name}` still raises NotImplementedError (line {at.tb_lineno})."
        lines = [f"{type(error).__name__}: {text}" if text else type(error).__name__]
        frames = list(traceback.walk_tb(error.__traceback__))
        own = [(f, n) for f, n in frames if f.f_code.co_filename == self.filename]
        if len(own) > 6:
            own = own[:2] + own[-3:]
        for frame, number in own:
            code = linecache.getline(self.filename, number).strip()
            lines.append(f"  line {number}, in {frame.f_code.co_name}: {code}")
        probe = [(f, n) for f, n in frames if f.f_code.co_filename == PROBE_FILE]
        if probe:
            frame, number = probe[-1]
            lines += _call(frame, number)
        return "\n".join(lines)


def _call(frame: types.FrameType, number: int) -> list[str]:
    """The probe's line that led to the exception, and what its names stood for."""
    code = linecache.getline(PROBE_FILE, number).strip().removeprefix("return ")
    words = set(code.replace(".", " ").translate(_BRACKETS).split())
    shapes = [
        f"{name}: {_describe(value)}"
        for name, value in frame.f_locals.items()
        if name in words and isinstance(value, (torch.Tensor, int, float, str, torch.nn.Linear))
    ]
    return [f"  called as: {code}", *(["  with " + ", ".join(shapes)] if shapes else [])]


_BRACKETS = str.maketrans(dict.fromkeys("()[]{},=*:+-/@", " "))


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {str(value.dtype)[6:]}"
    if isinstance(value, torch.nn.Linear):
        return f"nn.Linear({value.in_features}, {value.out_features})"
    return repr(value)[:_ARGUMENT_CHARS]


def _text(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except BaseException:
        return ""


def _is_memory(error: BaseException) -> bool:
    text = _text(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in text or "out of memory" in text)
    )


def _trouble(kind: str, message: str) -> dict[str, Any]:
    return {"trouble": {"kind": kind, "message": message}}


def _syntax(error: Exception) -> str:
    if isinstance(error, (RecursionError, MemoryError)):
        return "The file is nested too deep for Python: hundreds of brackets, signs or elifs."
    if not isinstance(error, SyntaxError):
        return f"The file cannot be read as Python: {error}."
    lines = [f"{type(error).__name__}: {error.msg} (line {error.lineno})"]
    if error.text:
        lines.append("    " + error.text.strip())
    return "\n".join(lines)


def _answered(text: str, defines: Sequence[str]) -> bool:
    """Whether a function among what the kata defines holds more than a docstring and its
    NotImplementedError."""
    wanted = [node for node in ast.parse(text).body if getattr(node, "name", None) in defines]
    functions = [
        node
        for top in wanted
        for node in ast.walk(top)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    return any(not all(map(_says_nothing, node.body)) for node in functions)


def _says_nothing(node: ast.stmt) -> bool:
    match node:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(
            value=ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="super"))))
        ):
            return True  # it stands in the stub
        case ast.Raise(exc=ast.Name(id="NotImplementedError")):
            return True
        case ast.Raise(exc=ast.Call(func=ast.Name(id="NotImplementedError"))):
            return True
    return False


class _Told:
    """A probe with its helpers, from the examiner: what it sends is trusted."""

    def __init__(self, probe: dict[str, Any]) -> None:
        source = probe["source"].decode()
        self.lines = len(source), None, source.splitlines(keepends=True), PROBE_FILE
        self.code, self.values = marshal.loads(probe["code"]), probe["values"]


class _Given:
    """The tensors among a probe's arguments, as they were before it ran."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.kept = [
            (name if value is argument else "", value, value.shape, value.stride(), value.clone())
            for name, argument in arguments.items()
            for value in _tensors(argument, [])
            if value.is_cpu
        ]

    def changed(self) -> list[str]:
        """Names of the arguments whose values, shape or strides are others now; "" for one that
        was among others in a list."""
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            return list(
                dict.fromkeys(
                    name
                    for name, value, shape, stride, before in self.kept
                    if value.shape != shape or value.stride() != stride or not _equal(value, before)
                )
            )


def _tensors(value: Any, found: list[torch.Tensor]) -> list[torch.Tensor]:
    """All tensors in a value that came over the wire."""
    kind = type(value)
    if kind is torch.Tensor:
        found.append(value)
    elif kind is list or kind is tuple or kind is dict:
        for item in value.values() if kind is dict else value:
            _tensors(item, found)
    return found


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one, other) or bool(((one == other) | (one != one) & (other != other)).all())


def _what_is_there(missing: list[str], names: dict[str, Any]) -> str:
    own = [
        name
        for name, value in names.items()
        if not name.startswith("__")
        and not isinstance(value, types.ModuleType)
        and getattr(value, "__module__", None) == names["__name__"]
    ]
    lines = []
    for name in missing:
        near = difflib.get_close_matches(name, own, 1)
        ask = f" Is it your `{near[0]}`?" if near else ""
        lines.append(f"`{name}` is not in the file.{ask}")
    there = ", ".join(own[:12]) or "no class and no function"
    return "\n".join([*lines, f"The file defines: {there}."])
