"""Collects a hidden suite with pytest: from its source, and before the submission is loaded.

A submission can write to our files. Neither cached bytecode nor what a suite's file holds later
counts, and a suite of which checks are missing is a fault of the grader.
"""

import ast
import linecache
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import unwrap
from pathlib import Path
from types import CodeType
from typing import Any

from grader.errors import GraderError

Check = Callable[..., Any]

_SHARED = "grader.suites.shared"

_PLUGINS_OFF = [
    "terminal",
    "cacheprovider",
    "faulthandler",
    "logging",
    "doctest",
    "unittest",
    "warnings",
    "pastebin",
    "junitxml",
    "tmpdir",
    "monkeypatch",
    "recwarn",
    "stepwise",
    "setuponly",
    "setupplan",
    "debugging",
    "threadexception",
    "unraisableexception",
    "legacypath",
    "capture",
]


class _Collector:
    """A pytest plugin that takes the checks it has collected, and runs none."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        self.checks = [item.obj for item in items]

    def pytest_runtestloop(self) -> bool:
        return True


def collect(path: Path) -> list[Check]:
    """The checks of the suite at `path`, in its order. Raises GraderError if it has none, or if
    pytest finds fewer than are written there."""
    import pytest

    text = path.read_text(encoding="utf-8")
    collector = _Collector()
    off = [word for name in _PLUGINS_OFF for word in ("-p", f"no:{name}")]
    words = ["-c", os.devnull, f"--rootdir={path.parent}", "--noconftest"]
    words += [f"--confcutdir={path.parent}", "--assert=plain", "--import-mode=importlib"]
    with _pytest_alone(), _from_source():
        status = pytest.main([str(path), *off, *words], plugins=[collector])
    if status == pytest.ExitCode.INTERRUPTED:  # it swallows Ctrl-C
        raise KeyboardInterrupt
    written = sum(
        isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        for node in ast.parse(text).body
    )
    if not collector.checks or len(collector.checks) != written:
        raise GraderError(
            f"Of the {written} checks in {path.name} pytest finds {len(collector.checks)} "
            f"(status {status:d})."
        )
    for name, module in list(sys.modules.items()):
        file = module.__file__ if name.startswith(_SHARED) else None
        if file is not None and file not in _pinned:
            _pin(file, Path(file).read_text(encoding="utf-8"))
    _pin(str(path), text)
    return collector.checks


def _pin(path: str, text: str) -> None:
    """Its source is this from now on: with no time of change, linecache reads no file again."""
    linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    _pinned.add(path)


_pinned: set[str] = set()


def owns(helper: Callable[..., Any], caller: Callable[..., Any]) -> bool:
    """Whether a helper goes to the stage with its caller: one of the same suite, or one that
    suites share."""
    return helper.__module__ == caller.__module__ or helper.__module__.startswith(_SHARED)


def source(function: Callable[..., Any]) -> str:
    """The text of a function of a suite, as it was collected: what `inspect.getsource` finds by
    taking the rest of the file into tokens."""
    code = unwrap(function).__code__
    lines = linecache.getlines(code.co_filename)
    first, last = code.co_firstlineno - 1, _last_line(code)
    indent = _indent(lines[first])
    # A bracket that is closed on a line of its own may belong to no instruction.
    while last < len(lines) and (
        _indent(lines[last]) > indent or lines[last].lstrip().startswith((")", "]", "}"))
    ):
        last += 1
    return textwrap.dedent("".join(lines[first:last]))


def _last_line(code: CodeType) -> int:
    own = max(end or 0 for _, end, _, _ in code.co_positions())
    return max([own, *(_last_line(c) for c in code.co_consts if isinstance(c, CodeType))])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip()) if line.strip() else 0


@contextmanager
def _pytest_alone() -> Iterator[None]:
    """Without what the user has set up for tests of their own."""
    kept = {k: os.environ.pop(k, None) for k in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        yield
    finally:
        os.environ.update({k: v for k, v in kept.items() if v is not None})


@contextmanager
def _from_source() -> Iterator[None]:
    """Python finds no cached bytecode and writes none."""
    kept = sys.pycache_prefix, sys.dont_write_bytecode
    sys.pycache_prefix, sys.dont_write_bytecode = os.devnull, True
    try:
        yield
    finally:
        sys.pycache_prefix, sys.dont_write_bytecode = kept
