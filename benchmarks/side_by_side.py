"""What the benchmarks share: contestants timed in turns, ratios, and a table."""

import gc
import importlib
import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch

from grader import content

Call = Callable[[], object]
_SAMPLE_S = 0.005  # a quick call is repeated to last about this long


def solution(slug: str) -> Any:
    """A fresh module of the kata's reference solution."""
    spec = importlib.util.spec_from_file_location(f"solution_{slug}", content.solution(slug))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def optional(name: str) -> ModuleType | None:
    """The module, or None with a line that says that it does not take part."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed and does not take part: pip install -e '.[compare]'\n")
        return None


def medians(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Median seconds of one call of each contestant.

    Every round runs each once, in turn, so that a busy moment falls on all alike; rounds begin
    with another contestant each. Warmed up before, without garbage collection meanwhile.
    """
    names = list(calls)
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, round(_SAMPLE_S / max(_seconds(call, 1), 1e-6)))
    taken: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                taken[name].append(_seconds(calls[name], repeats[name]))
    finally:
        gc.enable()
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _seconds(call: Call, repeats: int) -> float:
    # One thread is measured in processor time, which other programs hardly disturb.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    for _ in itertools.repeat(None, repeats):
        call()
    return (clock() - began) / repeats


def heading(rounds: int) -> str:
    """On what the numbers were measured."""
    threads = torch.get_num_threads()
    return f"torch {torch.__version__}, {threads} thread(s), medians of {rounds} interleaved rounds"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths)
        return " | ".join([f"| {first[0]:<{first[1]}}", *(f"{c:>{w}}" for c, w in others)]) + " |"

    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join([line(head), line(rule), *(line(row) for row in rows)])
