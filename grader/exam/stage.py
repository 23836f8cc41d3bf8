"""The child process in which the learner's code runs.

It loads one submission, then runs one probe at a time beside it and sends back evidence. It
decides nothing. Whatever happens here, the examiner reads only bounded, plain data.
"""

import _thread
import builtins
import contextlib
import difflib
import gc
import importlib.abc
import linecache
import marshal
import os
import random
import resource
import signal
import socket
import sys
import time
import traceback
import types
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from grader.exam import kit, wire

PROBE_FILE = "<probe>"
OUT_OF_MEMORY_EXIT = 77
_FILE_BYTES = 64 << 20
_THREAD_GRACE_S = 0.25
_ARGUMENT_CHARS = 200


class _NoGrader(importlib.abc.MetaPathFinder):
    """Keeps the grader's own packages out of a submission's reach."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name.partition(".")[0] in ("grader", "solutions"):
            raise ImportError(f"a submission cannot import '{name}'", name=name)


class _Pristine:
    """What a submission may have changed around itself, put back before every probe."""

    def __init__(self) -> None:
        self.modules = dict(sys.modules)
        self.builtins = dict(vars(builtins))
        self.path, self.meta_path = list(sys.path), list(sys.meta_path)
        self.environ = dict(os.environ)
        self.cwd = os.getcwd()
        self.recursion = sys.getrecursionlimit()
        self.streams = sys.stdout, sys.stderr

    def restore(self, seed: int) -> None:
        vars(builtins).update(self.builtins)
        for name, module in self.modules.items():
            if sys.modules.get(name) is not module:
                sys.modules[name] = module
        sys.path[:], sys.meta_path[:] = self.path, self.meta_path
        if dict(os.environ) != self.environ:
            os.environ.clear()
            os.environ.update(self.environ)
        with contextlib.suppress(OSError):
            os.chdir(self.cwd)
        warnings.resetwarnings()  # a warning is no error, whatever the caller or the file has set
        warnings.simplefilter("ignore", DeprecationWarning)
        sys.settrace(None)
        sys.setprofile(None)
        sys.setrecursionlimit(self.recursion)
        sys.stdout, sys.stderr = self.streams
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
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
        if (numpy := sys.modules.get("numpy")) is not None:
            numpy.random.seed(seed % 2**32)


def serve(sock: socket.socket, memory_bytes: int | None) -> None:
    """Answer requests until the examiner hangs up."""
    torch.set_num_threads(1)
    for name in [n for n in sys.modules if n.partition(".")[0] in ("grader", "solutions")]:
        del sys.modules[name]
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path[:] = [p for p in sys.path if p and os.path.abspath(p) != here]
    sys.meta_path.insert(0, _NoGrader())
    sys.argv[:] = [""]
    _limit(memory_bytes)
    stage = _Stage()
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


def _limit(memory_bytes: int | None) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    if memory_bytes is not None and sys.platform == "linux":
        with open("/proc/self/statm") as file:
            start = int(file.read().split()[0]) * resource.getpagesize()
        limit = start + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class _Stage:
    def __init__(self) -> None:
        self.pristine = _Pristine()
        self.module = types.ModuleType("submission")
        self.filename = "submission"
        # The count goes on from that of the process we were forked from; its threads did not.
        self.inherited = _thread._count()

    def answer(self, request: dict[str, Any]) -> bytes:
        """One encoded reply: evidence, or what was raised instead."""
        try:
            self.pristine.restore(request["seed"])
            # Inference mode and grad mode may have been left on; neither reaches the probe.
            with torch.inference_mode(False), torch.enable_grad():
                if request["op"] == "load":
                    result = self._load(**request["load"])
                else:
                    result = {"evidence": self._probe(**request["probe"])}
        except BaseException as error:
            result = self._raised(error)
        vars(builtins).update(self.pristine.builtins)
        result["threads"] = self._threads()
        try:
            return wire.encode({"id": request["id"], **result})
        except BaseException as error:
            text = str(error) if isinstance(error, wire.WireError) else "evidence cannot be read"
            return wire.encode({"id": request["id"], "unsendable": text, "threads": 0})

    def _load(
        self, slug: str, filename: str, source: bytes, defines: Sequence[str]
    ) -> dict[str, Any]:
        self.filename = filename
        self.module = module = types.ModuleType(slug)
        module.__file__ = filename
        if not source.strip():
            return _trouble("missing", "The file is empty.")
        try:
            code = compile(source, filename, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            return _trouble("syntax", _syntax(error, source))
        lines = source.decode(errors="replace").splitlines(keepends=True)
        linecache.cache[filename] = (len(source), None, lines, filename)
        sys.modules[slug] = module
        try:
            exec(code, vars(module))
        except Exception as error:
            memory = _is_memory(error)
            return _trouble(
                "memory" if memory else "import",
                "The file cannot be loaded.\n" + self._story(error),
            )
        missing = [name for name in defines if name not in vars(module)]
        if missing:
            return _trouble("missing", _what_is_there(missing, vars(module)))
        self.pristine.modules[slug] = module
        return {"evidence": None}

    def _probe(
        self,
        name: str,
        source: str,
        code: bytes,
        values: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        lines = source.splitlines(keepends=True)
        linecache.cache[PROBE_FILE] = (len(source), None, lines, PROBE_FILE)
        scope: dict[str, Any] = {n: getattr(kit, n) for n in kit.__all__}
        scope.update(values, __name__=PROBE_FILE, __builtins__=dict(self.pristine.builtins))
        exec(marshal.loads(code), scope)  # from the examiner: what it sends is trusted
        return scope[name](self.module, *args, **kwargs)

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
                "unwritten": self._unwritten(error),
                "memory": _is_memory(error),
            }
        }

    def _unwritten(self, error: BaseException) -> bool:
        """Whether the file itself says that something is not written; torch says it too, of what
        it has no kernel for."""
        last = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1:]
        own = any(frame.f_code.co_filename == self.filename for frame in last)
        return isinstance(error, NotImplementedError) and own

    def _story(self, error: BaseException) -> str:
        """The exception, the learner's frames, and the probe's call with its shapes."""
        text = _text(error)
        if isinstance(error, kit.Missing):
            return text
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
    code = linecache.getline(PROBE_FILE, number).strip()
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


def _syntax(error: SyntaxError | ValueError, source: bytes) -> str:
    try:
        source.decode("utf-8-sig")
    except UnicodeDecodeError as bad:
        line = source.count(b"\n", 0, bad.start) + 1
        if not isinstance(error, SyntaxError) or "utf-8" in str(error).lower():
            return f"The file is not UTF-8 text (line {line})."
    if not isinstance(error, SyntaxError):
        return f"The file cannot be read as Python: {error}."
    lines = [f"{type(error).__name__}: {error.msg} (line {error.lineno})"]
    if error.text:
        lines.append("    " + error.text.strip())
    return "\n".join(lines)


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
