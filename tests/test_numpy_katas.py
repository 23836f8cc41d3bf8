"""What the NumPy katas say of themselves."""

import runpy

import pytest

from grader import content


def test_the_demonstration_prints_what_the_docstring_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two tasks are trained, merged and switched, and every number of the docstring comes out."""
    path = str(content.solution("numpy_two_tasks"))
    docstring = runpy.run_path(path)["__doc__"]
    assert capsys.readouterr().out == ""  # imported, it prints nothing
    runpy.run_path(path, run_name="__main__")
    told = [line[4:] for line in docstring.splitlines() if line.startswith("    ")]
    assert capsys.readouterr().out.splitlines() == told
    assert len(told) == 9
