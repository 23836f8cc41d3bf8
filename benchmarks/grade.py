"""How many submissions a core grades: `kata grade` beside a pytest process, or `otter run`, each.

    python benchmarks/grade.py [--people 10] [--sample 10] [--rounds 1]

Each of the people hands in five katas, half of them right (the solution, and files that are kept
as right) and half with a kept mistake. pytest and otter make ten plain asserts each (`plain/`),
`kata grade` its whole suite. Contestants take turns, person by person where they can be split.
"Per core" is processor time, all processes together, which other programs hardly disturb; the
time on the clock is beside it. otter takes part where it is installed (otter-grader). With --sample
pytest and otter grade that many of the people: what one process costs does not hang on how many
there are.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from side_by_side import table

from grader import content

HERE = Path(__file__).parent
KEPT = HERE.parent / "tests" / "files"
KATAS = ("lora_linear", "ia3_linear", "inject_lora", "nf4_quantize", "prefix_tuning")
CONFTEST = """
import importlib, os
import pytest

@pytest.fixture
def kata():
    return importlib.import_module(os.environ["KATA"])
"""
OTTER = """
import types
from otter.test_files import test_case

OK_FORMAT = False
name = "plain"
points = 10
{plain}

@test_case(points=10)
def everything(env):
    kata = types.SimpleNamespace(**env)
    for check in [{checks}]:
        check(kata)
"""


@dataclass
class Cost:
    """Of one command: seconds of all cores together, and on the clock."""

    cpu_s: float = 0.0
    clock_s: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.cpu_s + other.cpu_s, self.clock_s + other.clock_s)


def cost(command: Sequence[str], ends: tuple[int, ...] = (0,), **extra: str) -> Cost:
    """Run a command to its end."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **extra},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in ends:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - began)


def sources(slug: str, number: int) -> list[bytes]:
    """So many submissions, right and wrong in turn, spread over the kept files."""
    right = [content.solution(slug), *sorted((KEPT / slug / "right").glob("*.py"))]
    wrong = sorted((KEPT / slug / "wrong").glob("*.py"))
    found = []
    for index in range(number):
        kind = (right, wrong)[index % 2]
        found.append(kind[(index // 2) * len(kind) // ((number + 1) // 2)].read_bytes())
    return found


def lay(folder: Path, people: int) -> None:
    """The class, and beside it what pytest and otter need."""
    for slug in KATAS:
        for number, source in enumerate(sources(slug, people)):
            file = folder / "class" / f"p{number}" / f"{slug}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            # A class hands in no two files alike.
            file.write_bytes(source + f"\n# {number}\n".encode())
        plain = (HERE / "plain" / f"{slug}.py").read_text()
        checks = [line[4:].split("(")[0] for line in plain.splitlines() if line[:9] == "def test_"]
        tests = folder / "pytest" / slug
        tests.mkdir(parents=True)
        shutil.copy(HERE / "plain" / f"{slug}.py", tests / "test_it.py")
        (tests / "conftest.py").write_text(CONFTEST)
        with zipfile.ZipFile(folder / f"{slug}.zip", "w") as packed:
            packed.writestr("otter_config.json", json.dumps({"lang": "python"}))
            test = OTTER.format(plain=plain, checks=", ".join(checks))
            packed.writestr("tests/plain.py", test)
    (folder / "empty.ini").write_text("[pytest]\n")


def by_pytest(folder: Path, person: Path) -> Cost:
    """One process a submission."""
    total = Cost()
    for slug in KATAS:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        command += ["-c", str(folder / "empty.ini"), str(folder / "pytest" / slug / "test_it.py")]
        path = os.pathsep.join([str(person), os.environ.get("PYTHONPATH", "")])
        total += cost(command, (0, 1), KATA=slug, PYTHONPATH=path)
    return total


def by_otter(folder: Path, person: Path) -> Cost:
    """One `otter run` a submission."""
    total = Cost()
    for slug in KATAS:
        out = folder / "otter"
        out.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "otter", "run", "-a", str(folder / f"{slug}.zip")]
        total += cost([*command, "-o", str(out), str(person / f"{slug}.py")])
        assert (out / "results.json").exists()
    return total


def by_kata(folder: Path, *words: str) -> Cost:
    """One run for the whole class."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "grader", "grade", str(folder / "class"), "--out", str(out)]
    taken = cost([*command, *words], KATA_HOME=str(folder / "home"))
    found = json.loads((out / "results.json").read_bytes())["submissions"]
    odd = [one for one in found if one["outcome"] not in ("passed", "failed")]
    assert not odd, odd
    return taken


KATA = {
    "kata grade, --seeds 1 --jobs 1": ("--seeds", "1", "--jobs", "1"),
    "the same without the box": ("--seeds", "1", "--jobs", "1", "--no-sandbox"),
    "kata grade, --jobs 1": ("--jobs", "1"),
    "kata grade, --seeds 1 --jobs 2": ("--seeds", "1", "--jobs", "2"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--rounds", type=int, default=1)
    words = parser.parse_args()
    by_person: dict[str, Callable[[Path, Path], Cost]] = {"pytest, a process each": by_pytest}
    if importlib.util.find_spec("otter") is None:
        print("otter-grader is not installed and does not take part: pip install otter-grader\n")
    else:
        by_person["otter run, each"] = by_otter
    taken: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay(folder, words.people)
        for _ in range(words.rounds):
            round_: dict[str, Cost] = dict.fromkeys(by_person, Cost())
            people = sorted((folder / "class").iterdir())[: words.sample]
            whole = [*KATA]
            for number, person in enumerate(people):
                for contestant, make in by_person.items():
                    round_[contestant] += make(folder, person)
                # The runs of kata grade are spread over the others' time.
                while whole and (len(KATA) - len(whole)) * len(people) <= number * len(KATA):
                    contestant = whole.pop(0)
                    round_[contestant] = by_kata(folder, *KATA[contestant])
            for contestant in whole:
                round_[contestant] = by_kata(folder, *KATA[contestant])
            for contestant, spent in round_.items():
                taken.setdefault(contestant, []).append(spent)
    print(f"{words.people * len(KATAS)} submissions, medians of {words.rounds} round(s)")
    sample = min(words.sample or words.people, words.people)
    if sample < words.people:
        print(f"pytest and otter: {sample * len(KATAS)} of them")
    one = {}  # what one submission costs
    for name, costs in taken.items():
        count = len(KATAS) * (words.people if name in KATA else sample)
        cpu_s = statistics.median(cost.cpu_s for cost in costs) / count
        one[name] = Cost(cpu_s, statistics.median(cost.clock_s for cost in costs) / count)
    base = one["pytest, a process each"]
    rows = [
        [
            name,
            f"{1 / each.cpu_s:.2f}",
            f"{base.cpu_s / each.cpu_s:.2f}",
            f"{1 / each.clock_s:.2f}",
            f"{base.clock_s / each.clock_s:.2f}",
        ]
        for name, each in one.items()
    ]
    head = ["contestant", "a second of a core", "× pytest", "a second on the clock", "× pytest"]
    print(f"\n{table(head, rows)}")
    box, bare, _, two = (one[name] for name in KATA)
    print(f"\nthe box with its asking in two ways: {(box.cpu_s - bare.cpu_s) * 1e3:.0f} ms each")
    print(f"--jobs 2 against --jobs 1 on the clock: {box.clock_s / two.clock_s:.2f}")
    if "otter run, each" in one:
        print(f"against otter, of a core: {one['otter run, each'].cpu_s / box.cpu_s:.2f}")


if __name__ == "__main__":
    main()
