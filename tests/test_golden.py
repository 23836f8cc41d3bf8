"""A folder per kind of learner file, with the screen that `kata run` shows for it.

`pytest tests/test_golden.py --update-goldens` writes the screens anew: look at the diff.
"""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

Kata = Callable[..., "subprocess.CompletedProcess[str]"]
GOLDEN = Path(__file__).parent / "golden"
KINDS = sorted(folder.name for folder in GOLDEN.iterdir())


def _normal(screen: str) -> str:
    """The screen without what may differ: seconds, last digits, a day, which kata is next."""
    screen = re.sub(r"passed, complete\. Next: .*", "passed, complete. Next: NEXT", screen)
    screen = re.sub(r"due again .*", "due again WHEN", screen)
    screen = re.sub(r"graded in \d+\.\d+ s", "graded in T s", screen)
    return re.sub(r"(?<=\d)\.\d+(e-?\d+)?", ".x", screen)


@pytest.mark.parametrize("kind", KINDS)
def test_screen(kata: Kata, tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """Each kind of file gets the screen and the exit code that it had before."""
    file = tmp_path / "work" / "lora_linear.py"
    file.write_bytes((GOLDEN / kind / "lora_linear.py").read_bytes())
    done = kata("run", "lora_linear", "--seed", "7")
    assert done.stderr == ""
    screen = _normal(done.stdout) + f"exit code {done.returncode}\n"
    golden = GOLDEN / kind / "screen.txt"
    if request.config.getoption("--update-goldens"):
        golden.write_text(screen)
    assert screen == golden.read_text()


@pytest.mark.parametrize("kind", ["exits", "one_mistake", "right", "stub", "syntax_error"])
def test_json_says_the_same(kata: Kata, kind: str, request: pytest.FixtureRequest) -> None:
    """The JSON of each kind agrees with its screen, and holds where arrays differ."""
    path = GOLDEN / kind / "lora_linear.py"
    done = kata("run", "lora_linear", "--file", str(path), "--json", "--seed", "7")
    verdict = json.loads(done.stdout)
    screen = (GOLDEN / kind / "screen.txt").read_text()
    assert screen.endswith(f"exit code {done.returncode}\n")
    assert verdict["passed"] == (done.returncode == 0)
    assert verdict["level"] == ("complete" if verdict["passed"] else "none")
    for part in {check["part"] for check in verdict["checks"]} if verdict["error"] is None else ():
        outcomes = [check["outcome"] for check in verdict["checks"] if check["part"] == part]
        score = f"{outcomes.count('passed')}/{len(outcomes)}"
        assert f" {part:8} {score:>5} " in screen
    if verdict["error"] is not None:
        assert verdict["error"]["kind"].upper() in screen
    differences = [check["difference"] for check in verdict["checks"] if "difference" in check]
    if kind != "one_mistake":
        assert not differences
        return
    golden = GOLDEN / kind / "difference.json"
    made = _normal(json.dumps(differences[0], indent=1)) + "\n"
    if request.config.getoption("--update-goldens"):
        golden.write_text(made)
    assert made == golden.read_text()
