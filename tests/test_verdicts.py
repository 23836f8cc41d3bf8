"""Right files pass, wrong files fail and are named, hostile files get a clean verdict."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from grader import catalog, content
from grader.exam import submission
from grader.exam.examiner import Examiner
from grader.exam.verdict import Kind, Outcome, Part, Trouble
from grader.practice import stubs

pytestmark = pytest.mark.slow

FILES = Path(__file__).parent / "files"
KATAS = sorted(content.solutions().glob("*.py"))
SOLUTION = content.solution("lora_linear").read_text()
SEED = 1  # of the files kept here: a draw in a thousand may hide which mistake a number shows


def _named(path: Path) -> str:
    """How a file of the corpus is called: `slug/stem`."""
    return f"{path.parent.parent.name}/{path.stem}"


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    with Examiner(lanes=2) as examiner:  # as `kata run` has it
        yield examiner


@pytest.fixture(scope="module")
def examiner_on_cpu() -> Iterator[Examiner]:
    with Examiner(accelerator="cpu") as examiner:
        yield examiner


@pytest.mark.long
@pytest.mark.parametrize("path", sorted(FILES.glob("*/right/*.py")), ids=_named)
def test_right_files_pass(examiner: Examiner, path: Path) -> None:
    """A correct file passes in whatever style it is written."""
    verdict = examiner.grade(path.parent.parent.name, path.read_bytes(), seed=SEED)
    assert verdict.passed, [c for c in verdict.checks if c.outcome is not Outcome.PASSED]


@pytest.mark.long
@pytest.mark.parametrize("path", sorted(FILES.glob("*/wrong/*.py")), ids=_named)
def test_wrong_files_fail(examiner: Examiner, path: Path) -> None:
    """A wrong file fails; the first mistake named is that of its second line, or none: "-", with
    "(unlikely)" behind it where nobody would make that mistake."""
    slug = path.parent.parent.name
    verdict = examiner.grade(slug, path.read_bytes(), seed=SEED, until_named=True)
    assert not verdict.passed
    bug = path.read_text().splitlines()[1].removeprefix("# bug:").split()[0]
    named = [check.bug for check in verdict.checks if check.bug] or ["-"]
    assert named[0] == bug


@pytest.mark.parametrize("path", KATAS, ids=lambda p: p.stem)
def test_solutions_pass(examiner_on_cpu: Examiner, path: Path) -> None:
    """Every reference passes its own suite, gpu checks included, tried on the CPU."""
    verdict = examiner_on_cpu.grade(path.stem, path.read_bytes())
    assert [c for c in verdict.checks if c.outcome is not Outcome.PASSED] == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("slug", "bug"),
    [(p.stem, bug) for p in KATAS for bug in catalog.entry(p.stem).bugs],
    ids=lambda value: getattr(value, "id", value),
)
def test_bugs_are_named(examiner: Examiner, slug: str, bug: catalog.Bug) -> None:
    """Every catalogued bug fails, and the first mistake named is that one."""
    wrong = catalog.planted(slug, bug, content.solution(slug).read_text())
    verdict = examiner.grade(slug, wrong.encode(), seed=SEED, until_named=True)
    assert [check.bug for check in verdict.checks if check.bug][:1] == [bug.id]


@pytest.mark.parametrize("path", KATAS, ids=lambda p: p.stem)
def test_stubs_are_not_started(examiner: Examiner, path: Path) -> None:
    """The stub is its solution without the answers, and reads as not started."""
    slug = path.stem
    assert (content.solutions().parent / "katas" / path.name).read_text() == stubs.stub(slug)
    verdict = examiner.grade(slug, stubs.stub(slug).encode())
    assert not verdict.passed
    assert not verdict.started


# Hostile files: what each does, and the kind of trouble it must end in.
HOSTILE: dict[str, tuple[str | bytes, Kind, str]] = {
    "syntax": ("class LoRALinear(:\n", Kind.SYNTAX, "line 1"),
    "not-utf-8": (b"x = '\xff\xfe'\n", Kind.SYNTAX, "UTF-8"),
    "null-bytes": (b"x = 1\0\n", Kind.SYNTAX, "null bytes"),
    "utf-16": ("x = 1\n".encode("utf-16"), Kind.SYNTAX, "UTF-16"),
    "zip": (b"PK\x03\x04rest", Kind.SYNTAX, "a zip archive"),
    "notebook": (b'{"cells": [], "nbformat": 4}', Kind.SYNTAX, "Jupyter notebook"),
    "empty": ("", Kind.MISSING, "empty"),
    "missing-name": ("class LoraLinear: pass\n", Kind.MISSING, "Is it your `LoraLinear`?"),
    "import-error": ("import nonexistent_module\n", Kind.IMPORT, "nonexistent_module"),
    "raises": ("1 / 0\n", Kind.IMPORT, "line 1"),
    "imports-grader": ("import grader\n", Kind.IMPORT, "cannot import"),
    "imports-solutions": ("import solutions.lora_linear\n", Kind.IMPORT, "cannot import"),
    "exit": ("raise SystemExit(0)\n", Kind.CRASH, "SystemExit"),
    "os-exit": ("import os; os._exit(0)\n", Kind.CRASH, "exit code 0"),
    "killed": ("import os; os.kill(os.getpid(), 9)\n", Kind.CRASH, "SIGKILL"),
    "memory": ("x = [0] * (1 << 34)\n", Kind.MEMORY, ""),
    "memory-torch": ("import torch; x = torch.ones(1 << 34)\n", Kind.MEMORY, ""),
    "flood": ("while True: print('x' * 1000)\n", Kind.OUTPUT, "1 MiB"),
    "thread": (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n" + SOLUTION,
        Kind.CRASH,
        "threads",
    ),
    "child": (
        "import subprocess\nsubprocess.Popen(['sleep', '60'])\n" + SOLUTION,
        Kind.CRASH,
        "proc",
    ),
    "fork-bomb": ("import os\nwhile True: os.fork()\n", Kind.CRASH, "processes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_get_a_clean_verdict(examiner: Examiner, name: str) -> None:
    """Whatever a file does when loaded, the verdict says what, and the next one is unharmed."""
    source, kind, text = HOSTILE[name]
    verdict = examiner.grade("lora_linear", source.encode() if isinstance(source, str) else source)
    assert not verdict.passed
    assert verdict.error is not None
    assert verdict.error.kind is kind
    assert text in verdict.error.message
    after = examiner.grade("lora_linear", SOLUTION.encode(), part=Part.INIT)
    assert after.passed


LOOPS = {
    "at import": ("", "while True: pass\n", Kind.TIMEOUT, "does not stop"),
    "in forward": ("while x.dim() == 1: pass", "", Kind.TIMEOUT, "does not stop"),
    "waiting": ("import time; time.sleep(600)", "", Kind.TIMEOUT, "waits for something"),
    "growing": (
        "held = bytearray()\n        while True: held += bytes(32 << 20)",
        "",
        Kind.MEMORY,
        "GiB",
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_what_never_ends(examiner: Examiner, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What computes, waits or grows without end is given up and called what it is; the checks
    after it are not run, and say so."""
    line, before, kind, text = LOOPS[name]
    if name == "waiting":
        monkeypatch.setattr("grader.exam.examiner._WALL_S", 1.0)
    elif name != "growing":
        monkeypatch.setattr("grader.exam.examiner.CPU_S", 0.5)
    place = "out = self.base(x)"
    source = before + SOLUTION.replace(place, f"{line}\n        {place}" if line else place)
    verdict = examiner.grade("lora_linear", source.encode())
    assert verdict.error is not None
    assert verdict.error.kind is kind
    assert text in verdict.error.message
    if name == "in forward":
        assert verdict.checks[0].outcome is Outcome.PASSED
    last = [check for check in verdict.checks if check.part is not Part.GPU][-1]
    assert last.outcome is Outcome.ERROR
    assert last.message.startswith("Not run")


ATTACKS = [path for path in sorted(FILES.glob("attacks/*.py")) if "prlimit" not in path.stem]


@pytest.mark.parametrize("path", ATTACKS, ids=lambda path: path.stem)
def test_attacks_end_in_a_failing_verdict(examiner: Examiner, path: Path) -> None:
    """Lies about what torch does, forged replies and work out of sight: each file's second line
    says how its verdict ends. Nothing of it is left."""
    verdict = examiner.grade("lora_linear", path.read_bytes(), seed=SEED)
    kind, _, text = path.read_text().splitlines()[1].removeprefix("# ends: ").partition(": ")
    if kind == "passed":
        assert verdict.passed
    elif kind == "crash":
        assert verdict.error is not None
        assert verdict.error.kind is Kind.CRASH
        assert text in verdict.error.message
    else:
        assert verdict.error is None
        failed = [check for check in verdict.checks if check.outcome is Outcome.FAILED]
        assert any(text == check.bug or text in check.message for check in failed)
    assert os.listdir(examiner.nursery().folder) == []
    assert examiner.grade("lora_linear", SOLUTION.encode(), part=Part.INIT).passed


LEFT = {
    "grad mode": "torch.set_grad_enabled(False)",
    "the default dtype": "torch.set_default_dtype(torch.float64)",
    "function modes": "torch.set_default_device('cpu')",
    "dispatch modes": (
        "from torch.utils._python_dispatch import TorchDispatchMode as M\n        "
        "through = {'__torch_dispatch__': lambda s, f, t, a=(), k=None: f(*a, **(k or {}))}\n"
        "        type('Through', (M,), through)().__enter__()"
    ),
    "the number of threads": "torch.set_num_threads(2)",
    "global module hooks": "nn.modules.module.register_module_forward_hook(print)",
    "autocast": "torch.set_autocast_enabled('cpu', True)",
    "deterministic": "torch.use_deterministic_algorithms(True)",
}


@pytest.mark.parametrize("what", LEFT)
def test_what_a_call_leaves_behind(examiner: Examiner, what: str) -> None:
    """A call that leaves torch's global state changed fails, whatever its output is."""
    line = f"{LEFT[what]}\n        return self.scale * (self.lora_B @ self.lora_A)"
    source = SOLUTION.replace("return self.scale * (self.lora_B @ self.lora_A)", line)
    assert source != SOLUTION
    verdict = examiner.grade("lora_linear", source.encode(), part=Part.MERGE)
    messages = [c.message for c in verdict.checks if c.outcome is Outcome.FAILED]
    assert any("global state changed" in text and what in text for text in messages)


def test_arguments_belong_to_the_caller(examiner: Examiner) -> None:
    """A tensor of the caller whose values, shape or strides change is noticed in any check."""
    last = "low = F.linear(self.dropout(x), self.lora_A)"
    assert last in SOLUTION
    for change in ("x.add_(0.5)", "x.unsqueeze_(0)", "x.t_() if x.dim() == 2 else x"):
        source = SOLUTION.replace(last, f"{last}; {change}")
        verdict = examiner.grade("lora_linear", source.encode(), part=Part.SHAPE)
        assert "changes-input-in-place" in [check.bug for check in verdict.checks]


def test_printed_belongs_to_its_check(examiner: Examiner) -> None:
    """What a check prints stands with that check, what loading prints with the verdict."""
    source = SOLUTION.replace(
        "out = self.base(x)", "print('in', tuple(x.shape)); out = self.base(x)"
    )
    verdict = examiner.grade(
        "lora_linear", b"print('loading')\n" + source.encode(), part=Part.SHAPE
    )
    assert verdict.output == "loading\n"
    printed = {check.name: check.printed for check in verdict.checks}
    assert "in (18,)" in printed["single_vector"]
    assert "in (18,)" not in printed["any_leading_dimensions"]
    assert printed["factor_shapes"] == ""


def test_headline_is_what_says_most(examiner: Examiner) -> None:
    """A named mistake leads, wherever it stands; without one the first failure does."""
    wrong = SOLUTION.replace("alpha / rank", "alpha").encode()
    verdict = examiner.grade("lora_linear", wrong, seed=SEED)
    assert verdict.headline is not None
    assert verdict.checks[verdict.headline].bug == "scale-is-alpha"
    assert examiner.grade("lora_linear", SOLUTION.encode()).headline is None
    assert examiner.grade("lora_linear", b"1 / 0").headline is None


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        # A slip of the pen in forward(), and a mistake that a check names which never calls it.
        (
            [("out = self.base(x)", "out = self.bse(x)"), ("if rank < 1:", "if rank < -9:")],
            ["self.bse(x)", "rank-unchecked"],
        ),
        # In the core a named mistake leads, and the exception comes next.
        (
            [("out = self.base(x)", "out = self.bse(x)"), ("new_zeros(", "new_ones(")],
            ["b-random", "self.bse(x)"],
        ),
    ],
    ids=["beyond the core", "in the core"],
)
def test_an_exception_everywhere_is_shown(
    examiner: Examiner, wrong: list[tuple[str, str]], shown: list[str]
) -> None:
    """What stopped most of the checks is told beside what a few others name."""
    source = SOLUTION
    for right, instead in wrong:
        assert right in source
        source = source.replace(right, instead)
    verdict = examiner.grade("lora_linear", source.encode(), seed=SEED)
    first = [verdict.checks[at] for at in verdict.failures[:2]]
    for check, told in zip(first, shown, strict=True):
        assert check.bug == told or (check.bug is None and told in check.message)
    raised = next(check for check in first if check.raised)
    missing = "AttributeError: 'LoRALinear' object has no attribute 'bse'"
    line = source.splitlines().index("        out = self.bse(x)") + 1
    assert raised.brief == f"{missing}; line {line}, in forward: out = self.bse(x)"


FORGOTTEN = "        self.merged = False\n"


def test_not_started_is_for_files_without_an_answer(examiner: Examiner) -> None:
    """A NotImplementedError forgotten beside written code is named with its method and line."""
    assert FORGOTTEN in SOLUTION
    source = SOLUTION.replace(FORGOTTEN, FORGOTTEN + "        raise NotImplementedError\n")
    verdict = examiner.grade("lora_linear", source.encode())
    line = source.splitlines().index("        raise NotImplementedError") + 1
    assert verdict.started
    assert f"`LoRALinear.__init__` still raises NotImplementedError (line {line})." in [
        check.message for check in verdict.checks
    ]


IN_FORWARD = {
    "exits": ("raise SystemExit(0)", Kind.CRASH),
    "os-exit": ("import os; os._exit(0)", Kind.CRASH),
    "memory": ("torch.ones(1 << 34)", Kind.MEMORY),
    "flood": ("print('x' * (2 << 20))", Kind.OUTPUT),
}


@pytest.mark.parametrize("name", IN_FORWARD)
def test_death_in_a_check(examiner: Examiner, name: str) -> None:
    """A stage that dies in one check fails that one; checks before and after are judged."""
    line, kind = IN_FORWARD[name]
    source = SOLUTION.replace(
        "out = self.base(x)", f"if x.dim() == 1:\n            {line}\n        out = self.base(x)"
    )
    verdict = examiner.grade("lora_linear", source.encode())
    assert verdict.error is not None
    assert verdict.error.kind is kind
    outcomes = {check.name: check.outcome for check in verdict.checks}
    assert outcomes["single_vector"] is Outcome.ERROR
    assert outcomes["any_leading_dimensions"] is Outcome.PASSED
    assert outcomes["adds_the_scaled_low_rank_update"] is Outcome.PASSED


@pytest.mark.parametrize("number", [9, 19])
def test_parent_killed_or_stopped(examiner: Examiner, number: int) -> None:
    """A file that kills or stops the process that started it fails; the next is unharmed."""
    source = SOLUTION + (
        "\n\nimport os\n_forward = LoRALinear.forward\n"
        f"def forward(self, x):\n    os.kill(os.getppid(), {number})\n"
        "    return _forward(self, x)\nLoRALinear.forward = forward\n"
    )
    verdict = examiner.grade("lora_linear", source.encode(), part=Part.DEVICE)
    assert not verdict.passed
    assert verdict.error is not None
    assert verdict.error.kind is Kind.CRASH
    assert examiner.grade("lora_linear", SOLUTION.encode(), part=Part.INIT).passed


def test_state_does_not_leak(examiner: Examiner) -> None:
    """What a file changes around itself when loaded is put back before each check."""
    source = (
        "import os, sys, torch, random\n"
        "torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)\n"
        "torch.set_default_device('meta'); os.chdir('/'); sys.modules['math'] = None\n" + SOLUTION
    )
    before = os.getcwd()
    verdict = examiner.grade(
        "lora_linear",
        source.replace("import math\n", "").replace("math.sqrt(5)", "5 ** 0.5").encode(),
    )
    assert verdict.passed, verdict.checks
    assert os.getcwd() == before


def test_examiner_beside_other_threads() -> None:
    """Threads of the process that made the examiner are not the submission's."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with Examiner() as examiner:
            assert examiner.grade("lora_linear", SOLUTION.encode(), part=Part.INIT).passed
    finally:
        done.set()
        thread.join()


def test_warnings_are_no_errors(examiner: Examiner) -> None:
    """A file that warns passes, also where the caller has made warnings errors, as tests do."""
    source = SOLUTION.replace(
        "out = self.base(x)", "import warnings; warnings.warn('careful'); out = self.base(x)"
    )
    assert examiner.grade("lora_linear", source.encode(), part=Part.SHAPE).passed


def test_probes_do_not_tell_where_the_suite_lies(examiner: Examiner) -> None:
    """No name that a probe stands among holds the path of a suite or a solution."""
    slug = "nf4_quantize"  # its probes speak of a file, the submission's
    spy = (
        "\n\nimport sys\n_quantize = quantize_nf4\n"
        "def quantize_nf4(*args, **kwargs):\n"
        "    frame = sys._getframe(1)\n"
        "    while frame:\n"
        "        told = [*frame.f_globals.values(), *frame.f_locals.values()]\n"
        "        if frame.f_code.co_filename == '<probe>':\n"
        "            print('probe', [v for v in told if isinstance(v, str)])\n"
        "        frame = frame.f_back\n"
        "    return _quantize(*args, **kwargs)\n"
    )
    verdict = examiner.grade(slug, (content.solution(slug).read_text() + spy).encode())
    told = "".join(check.printed for check in verdict.checks)
    assert "probe" in told
    assert "suites" not in told
    assert "solutions" not in told


def test_control_characters_are_harmless(examiner: Examiner) -> None:
    """Escapes in what a file prints or raises never reach the terminal."""
    source = SOLUTION.replace(
        "out = self.base(x)", "print('\\x1b[2Jboo'); raise ValueError('\\x1b]0;title\\x07\\x08')"
    )
    verdict = examiner.grade("lora_linear", source.encode())
    text = verdict.output + "".join(check.message for check in verdict.checks)
    assert "boo" in text
    assert not [c for c in text if ord(c) < 32 and c not in "\n\t"]


def test_exception_shows_frames_and_call(examiner: Examiner) -> None:
    """The message has the learner's line, the probe's call and the shapes, and no path of ours."""
    source = SOLUTION.replace(
        "low = F.linear(self.dropout(x), self.lora_A)", "low = x @ self.lora_A"
    )
    verdict = examiner.grade("lora_linear", source.encode(), part=Part.SHAPE)
    message = next(c.message for c in verdict.checks if c.name == "single_vector")
    assert "in forward: low = x @ self.lora_A" in message
    assert "called as: " in message
    assert "layer(x)" in message
    assert "x: (5, 18) float32" in message
    assert "grader/" not in message


def test_torch_says_not_implemented_too(examiner: Examiner) -> None:
    """NotImplementedError is "not started" where the stub raises it, not where torch does."""
    source = SOLUTION.replace("out = self.base(x)", "x = x.cpu(); out = self.base(x)")
    verdict = examiner.grade("lora_linear", source.encode(), part=Part.DEVICE)
    (check,) = verdict.checks
    assert check.started
    assert "meta" in check.message


def test_odd_files(tmp_path: Path) -> None:
    """A folder, a FIFO and a huge file are told from a file to grade."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge.py").write_bytes(b"#" * (2 << 20))
    for name, kind in (("", Kind.MISSING), ("pipe", Kind.MISSING), ("huge.py", Kind.IMPORT)):
        trouble = submission.read(tmp_path / name)
        assert isinstance(trouble, Trouble)
        assert trouble.kind is kind


def test_same_seed_same_verdict(examiner: Examiner) -> None:
    """A seed replays the same inputs."""
    wrong = SOLUTION.replace("alpha / rank", "alpha").encode()
    one, two = (examiner.grade("lora_linear", wrong, seed=7) for _ in range(2))
    assert one.checks == two.checks
    assert one.seed == 7


@pytest.mark.long
def test_a_slow_import_of_torchs_compiler_is_no_endless_loop(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Where nothing is compiled yet, importing it takes longer than a check usually may."""
    path = tmp_path / "mine.py"
    path.write_text(f"import torch._dynamo\n\n{SOLUTION}")
    command = [sys.executable, "-m", "grader", "run", "lora_linear", "--part", "init"]
    cold = {"PYTHONPYCACHEPREFIX": str(tmp_path / "none"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, "--file", str(path)],
        env={**environment, **cold},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


SIDE_BY_SIDE = {
    "right": SOLUTION,
    "scale left out": SOLUTION.replace("self.scale * ", ""),
    "cannot be loaded": SOLUTION + "\nraise ValueError('no')\n",
    "ends the process": SOLUTION.replace("out = self.base(x)", "import os; os._exit(3)"),
    "prints": SOLUTION.replace("out = self.base(x)", "print('here'); out = self.base(x)"),
}


@pytest.mark.parametrize("source", SIDE_BY_SIDE.values(), ids=SIDE_BY_SIDE)
def test_stages_side_by_side_change_no_verdict(examiner: Examiner, source: str) -> None:
    """What one stage says of a file, two say: outcomes, mistakes named, words, what it printed."""
    with Examiner() as one:
        want = one.grade("lora_linear", source.encode(), seed=SEED)
    got = examiner.grade("lora_linear", source.encode(), seed=SEED)
    assert (got.passed, got.error, got.output) == (want.passed, want.error, want.output)
    ended = "checks had ended the process"  # each stage counts its own
    for mine, theirs in zip(got.checks, want.checks, strict=True):
        if ended not in mine.message + theirs.message:
            assert mine == theirs


def test_file_that_can_be_loaded_once(examiner: Examiner, tmp_path: Path) -> None:
    """What a file does when it is loaded may work but once: then one stage makes all checks."""
    source = f"import os; os.mkdir({str(tmp_path / 'made')!r})\n" + SOLUTION
    verdict = examiner.grade("lora_linear", source.encode(), seed=SEED)
    assert verdict.passed, verdict
    assert verdict.checks == examiner.grade("lora_linear", SOLUTION.encode(), seed=SEED).checks
