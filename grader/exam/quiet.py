"""Keeps what torch prints and warns of while it is imported apart from what a learner's file says.

Parts of torch are imported late, at the first operator that needs them; some versions then warn
of what is not installed.
"""

import contextlib
import importlib.abc
import os
import sys
import warnings
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_TORCHS = ("torch", "torchgen", "functorch", "triton")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """While inside, nothing reaches the process's output, from Python or from below it."""
    _flush()
    kept = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _flush()
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


class QuietImports(importlib.abc.MetaPathFinder):
    """First on sys.meta_path: torch's own modules are loaded quietly from now on."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name.partition(".")[0] not in _TORCHS:
            return None
        found = (_found(f, name, path, target) for f in sys.meta_path if f is not self)
        spec = next((spec for spec in found if spec is not None), None)
        loader: Any = getattr(spec, "loader", None)
        if hasattr(loader, "exec_module") and hasattr(loader, "__dict__"):
            load = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                with quiet():
                    load(module)

            vars(loader)["exec_module"] = exec_module
        return spec


def _found(finder: Any, name: str, path: Any, target: ModuleType | None) -> ModuleSpec | None:
    find = getattr(finder, "find_spec", None)
    return find(name, path, target) if find is not None else None
