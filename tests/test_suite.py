"""What the examiner reads from a suite's text."""

import inspect
import sys
import textwrap
import types
from pathlib import Path

import pytest

from grader import content
from grader.exam import suite


@pytest.mark.parametrize("path", sorted(content.SUITES.glob("test_*.py")), ids=lambda p: p.stem)
def test_the_text_of_a_function_is_whole(path: Path) -> None:
    suite.collect(path)
    for name, module in list(sys.modules.items()):
        if name.startswith("grader.suites."):
            for function in vars(module).values():
                if isinstance(function, types.FunctionType) and function.__module__ == name:
                    whole = textwrap.dedent(inspect.getsource(function))
                    assert suite.source(function) == whole
