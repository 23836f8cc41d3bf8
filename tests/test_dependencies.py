"""What knows of what."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import grader

ROOT = Path(grader.__file__).parent
ENGINES = {"exam", "practice", "recall", "interview"}


def _known() -> dict[str, set[str]]:
    """The folders of the program, each with those that something in it imports."""
    folders = {path.parent.name for path in ROOT.glob("*/*.py")} - {"suites"}  # these are data
    known: dict[str, set[str]] = {folder: set() for folder in folders}
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                known[folder] |= {name.split(".")[1] for name in names if name[:7] == "grader."}
        known[folder] = (known[folder] & folders) - {folder}
    return known


def test_there_is_no_circle() -> None:
    """Folders can be put in an order in which each knows only those before it."""
    order = [*TopologicalSorter(_known()).static_order()]
    assert order.index("exam") < order.index("practice") < order.index("recall")
    assert order.index("recall") < order.index("interview") < order.index("cli")


def test_engines_know_no_terminal() -> None:
    """What grades, asks and plans knows neither commands nor pages."""
    known = _known()
    assert {"cli", "views"} < known.keys()
    for engine in ENGINES:
        assert not known[engine] & {"cli", "views"}
