"""How quick `kata` is, as ratios to plain imports measured side by side in the same run.

    python benchmarks/speed.py [ROUNDS]

Every round runs each command once, in turn, so that a busy moment falls on all alike; the table
gives medians. Peak memory is that of the largest process of a command's tree.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from grader import content

PYTHON = sys.executable
KATA = [PYTHON, "-m", "grader"]
SECOND = """
import time
from grader import content
from grader.practice.grading import Bench
source = content.solution("lora_linear").read_bytes()
with Bench() as bench:
    bench.judge("lora_linear", source, "lora_linear.py")
    began = time.perf_counter()
    assert bench.judge("lora_linear", source, "lora_linear.py").passed
    print(time.perf_counter() - began)
"""
ALL = """
import time
from grader import content
from grader.practice.grading import Bench
sources = {path.stem: path.read_bytes() for path in sorted(content.solutions().glob("*.py"))}
with Bench() as bench:
    for turn in range(2):  # suites are collected in the first
        began = time.perf_counter()
        for slug, source in sources.items():
            verdict = bench.judge(slug, source, slug)
            assert verdict.passed, f"{slug} at seed {verdict.seed}"
    print(time.perf_counter() - began)
"""
COMMANDS = {
    "import click, yaml": [PYTHON, "-c", "import click, yaml"],
    "import torch": [PYTHON, "-c", "import torch"],
    "kata --help": [*KATA, "--help"],
    "kata list": [*KATA, "list"],
    "kata run lora_linear": [*KATA, "run", "lora_linear", "--file"],
    "second grading": [PYTHON, "-c", SECOND],
    "all solutions": [PYTHON, "-c", ALL],
}
# As an installed kata runs: bytecode is written, in the first round, and used.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
WATCH = "watch: save to page"  # its last line, of the file that passes
PASSED = b"passed, complete"


@dataclass(frozen=True)
class Run:
    seconds: float
    peak_mib: float


def measure(name: str, home: str) -> Run:
    """One run of a command with a data folder of its own; it must end well."""
    command = COMMANDS[name]
    if command[-1] == "--file":
        command = [*command, str(content.solution("lora_linear"))]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**ENVIRONMENT, "KATA_HOME": home}, text=True
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{name} ended with status {status}")
    if command[1] == "-c" and said:
        seconds = float(said)
    return Run(seconds, usage.ru_maxrss / 1024)


class Watch:
    """`kata watch` on a file that passes; each `save` is measured until its page has come."""

    def __init__(self, home: str) -> None:
        self.file = Path(home, "lora_linear.py")
        self.source = content.solution("lora_linear").read_text()
        self.file.write_text(self.source)
        self.process = subprocess.Popen(
            [*KATA, "watch", "lora_linear"],
            stdout=subprocess.PIPE,
            env={**ENVIRONMENT, "KATA_HOME": home, "KATA_WORKSPACE": home},
        )
        self.saves = 0
        self.save()

    def save(self) -> Run:
        self.saves += 1
        new = self.file.with_suffix(".new")
        new.write_text(f"{self.source}# {self.saves}\n")
        began = time.perf_counter()
        new.replace(self.file)
        assert self.process.stdout is not None
        said = b""
        while PASSED not in said:
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise SystemExit("kata watch ended")
            said += chunk
        return Run(time.perf_counter() - began, 0.0)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    runs: dict[str, list[Run]] = {name: [] for name in [*COMMANDS, WATCH]}
    with tempfile.TemporaryDirectory() as home:
        watch = Watch(home)
        for number in range(rounds + 1):
            run = watch.save()
            if number:
                runs[WATCH].append(run)
            for name in COMMANDS:
                run = measure(name, home)
                if number:  # the first round fills caches
                    runs[name].append(run)
        watch.end()
    seconds = {name: statistics.median(r.seconds for r in all_) for name, all_ in runs.items()}
    peak = {name: statistics.median(r.peak_mib for r in all_) for name, all_ in runs.items()}
    print(f"{'':22} {'seconds':>8} {'peak MiB':>9}   ({rounds} rounds, medians)")
    for name in runs:
        print(f"{name:22} {seconds[name]:8.3f} {peak[name]:9.0f}")
    print()
    for what, ratio, aim in (
        ("kata --help / imports", seconds["kata --help"] / seconds["import click, yaml"], 2.0),
        ("kata list / imports", seconds["kata list"] / seconds["import click, yaml"], 2.0),
        ("cold run / torch", seconds["kata run lora_linear"] / seconds["import torch"], 1.05),
        ("second grading / torch", seconds["second grading"] / seconds["import torch"], 0.08),
        ("save to page / torch", seconds[WATCH] / seconds["import torch"], 0.25),
        ("all solutions / torch", seconds["all solutions"] / seconds["import torch"], 2.4),
        ("peak of a run / torch", peak["kata run lora_linear"] / peak["import torch"], 1.6),
    ):
        word = "ok" if ratio <= aim else "MISSED"
        print(f"{what:22} {ratio:8.2f}   at most {aim:<4}  {word}")


if __name__ == "__main__":
    main()
