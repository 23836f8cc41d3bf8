"""The box: what a file that nobody has read can reach, break or leave behind. Nothing."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grader import content
from grader.exam import asking, box, locks, marks
from grader.exam.examiner import Examiner
from grader.exam.nursery import all_children
from grader.exam.verdict import Outcome, Verdict

Kata = Callable[..., "subprocess.CompletedProcess[str]"]
CLONE = Path(__file__).parent.parent
FILES = CLONE / "tests" / "files"
HOSTILE = sorted((CLONE / "tests" / "hostile").glob("*/*.py"))
# One of each kind; the others are for the long run.
DAILY = {
    "lora_linear/daemon",
    "lora_linear/environment_of_the_parent",
    "lora_linear/forged_answers",
    "lora_linear/kernel_doors",
    "lora_linear/memory_in_a_file",
    "lora_linear/odd_files",
    "lora_linear/parameter_that_lies",
    "lora_linear/poisoned_bytecode",
    "lora_linear/shared_memory_filled",
    "lora_linear/signals_to_everyone",
    "lora_linear/work_past_the_counter",
    "inject_lora/model_that_lies",
    "multi_lora_batch/kernel_replaced",
    "multi_lora_batch/looks_whether_it_is_counted",
    "nf4_quantize/tensor_that_lies",
    "multi_lora_batch/kept_between_submissions",
}
SEED = 7

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def boxed() -> Iterator[Examiner]:
    try:
        examiner = Examiner(boxed=True)
    except box.Unavailable as error:
        pytest.skip(str(error))
    with examiner:
        yield examiner


def test_packages_below_tmp_are_shown_elsewhere() -> None:
    """A stage has /tmp for itself: a virtual environment there would be hidden with the rest."""
    packages = "/tmp/env/lib/python3.11/site-packages"
    words = box._walls([packages, "/opt/python"])
    shown = {words[at + 1]: words[at + 2] for at, word in enumerate(words) if word == "--ro-bind"}
    assert shown["/opt/python"] == "/opt/python"
    assert shown[packages] == "/box/from" + packages


def _inside(examiner: Examiner) -> box.Box:
    nursery = examiner.nursery()
    assert isinstance(nursery, box.Box)
    return nursery


def _nothing_left(examiner: Examiner) -> None:
    """No process lives in the box but the one that starts stages, and it holds no file."""
    nursery = _inside(examiner)
    assert all_children(nursery.pid) == []
    assert all_children(nursery.process.pid) == [nursery.pid]
    if nursery.group is not None:
        assert (nursery.group.memory / "cgroup.procs").read_text() == ""
    for folder in ("tmp", "box/grader", "dev"):
        there = os.listdir(f"/proc/{nursery.pid}/root/{folder}")
        assert not [name for name in there if "kata" in name or "left" in name]
    assert os.listdir(f"/proc/{nursery.pid}/root/tmp") == []


def _as_it_says(verdict: Verdict, text: str) -> None:
    """The verdict is no pass, and ends as the file's second line says."""
    assert not verdict.passed
    kind, _, said = text.splitlines()[1].removeprefix("# ends: ").partition(": ")
    if kind == "any":
        return
    if kind == "marked":
        assert any(mark.endswith(said) for mark in verdict.marks)
    elif kind == "tampered":
        assert said in verdict.tampered
    elif kind == "failed":
        assert verdict.error is None, verdict.error
        failed = [check for check in verdict.checks if check.outcome is Outcome.FAILED]
        assert any(said == check.bug or said in check.message for check in failed)
    else:
        assert verdict.error is not None
        assert verdict.error.kind == kind
        assert said in verdict.error.message


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if name in DAILY else pytest.mark.long, id=name)
        for path in HOSTILE
        for name in [f"{path.parent.name}/{path.stem}"]
    ],
)
def test_hostile_files_do_nothing(boxed: Examiner, path: Path) -> None:
    """None passes, none stops the run, none leaves anything behind."""
    shared = os.listdir("/dev/shm")
    verdict = boxed.grade(path.parent.name, path.read_bytes(), seed=SEED)
    _as_it_says(verdict, path.read_text())
    _nothing_left(boxed)
    assert os.listdir("/dev/shm") == shared


def test_there_are_enough_hostile_files() -> None:
    """Four katas of different kinds, and what the daily run takes is there."""
    names = {f"{path.parent.name}/{path.stem}" for path in HOSTILE}
    assert names >= DAILY
    assert len(names) >= 60
    assert len({path.parent.name for path in HOSTILE}) == 4


@pytest.mark.parametrize("slug", ["lora_linear", "numpy_lora", "lora_checkpoint"])
def test_what_is_right_passes_in_the_box(boxed: Examiner, slug: str) -> None:
    """A solution passes, asked twice, with nothing to look at."""
    verdict = boxed.grade(slug, content.solution(slug).read_bytes(), seed=SEED)
    assert verdict.passed, verdict
    assert verdict.tampered == verdict.marks == ()


@pytest.mark.long
@pytest.mark.parametrize("slug", sorted(p.stem for p in content.solutions().glob("*.py")))
def test_right_files_pass_in_the_box(boxed: Examiner, slug: str) -> None:
    """Solutions and, of each kata, some files in another style."""
    others = sorted(FILES.glob(f"{slug}/right/*.py"))
    for path in [content.solution(slug), *others[::4]]:
        verdict = boxed.grade(slug, path.read_bytes(), seed=SEED)
        assert verdict.passed, (path, verdict.error, [c for c in verdict.checks if c.message][:2])
        assert verdict.tampered == ()


@pytest.mark.long
def test_one_cannot_hurt_another(boxed: Examiner) -> None:
    """Of twenty, with one that hangs, one that crashes and one that forges, the other seventeen
    have the verdicts that they have alone."""
    files = sorted(FILES.glob("numpy_lora/*/*.py"))[:17]
    bad = [CLONE / f"tests/hostile/lora_linear/{n}.py" for n in ("spins", "segfault", "no_mapping")]
    assert len(files) == 17

    def verdicts(examiner: Examiner, paths: list[Path]) -> dict[Path, list[str]]:
        return {
            path: [
                f"{check.name} {check.outcome} {check.message}"
                for check in examiner.grade(path.parts[-3], path.read_bytes(), seed=SEED).checks
            ]
            for path in paths
        }

    alone = verdicts(boxed, files)
    with Examiner(boxed=True) as other:
        for at, path in enumerate(bad):
            assert not other.grade("lora_linear", path.read_bytes(), seed=SEED).passed
            share = files[at * 6 : at * 6 + 6]
            assert verdicts(other, share) == {path: alone[path] for path in share}


def test_nothing_of_ours_is_shown(boxed: Examiner) -> None:
    """Wherever Python's packages lie, no solution, suite, card or question is among what a
    submission can see, and of our files those alone that a stage needs."""
    slugs = [path.stem for path in content.solutions().glob("*.py")]
    ours = {f"{slug}.py" for slug in slugs} | {f"test_{slug}.py" for slug in slugs}
    ours |= {f"{slug}.yaml" for slug in slugs}
    root = Path(f"/proc/{_inside(boxed).pid}/root")
    places = [root / place.lstrip("/") for place in box._shown()] + [root / "box"]
    found = []
    for place in places:
        for folder, below, files in os.walk(place):
            if os.path.basename(folder) in ("torch", "proc"):
                below.clear()
            found += [os.path.join(folder, name) for name in files if name in ours]
    assert found == []
    own = {str(path.relative_to(root / "box/grader")) for path in root.glob("box/grader/**/*.py")}
    assert own == set(box._OURS)


def test_every_layer_holds() -> None:
    """Each layer says that it holds, and how, in a line."""
    found = box.layers()
    if not found[0].holds:
        pytest.skip(found[0].words)
    assert [layer.name for layer in found if layer.needed and not layer.holds] == []
    assert {"seccomp", "memory", "mounts", "network", "PID namespace"} <= {x.name for x in found}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (None, "apt install bubblewrap"),
        ("bwrap: No permissions to create new namespace", "No permissions to create new namespace"),
    ],
    ids=["missing", "refused"],
)
def test_a_machine_without_the_box(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str | None, told: str
) -> None:
    """Where bubblewrap is missing or refused, no examiner is made, and the words say what to do."""
    if said is not None:
        command = tmp_path / "bwrap"
        command.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) if said is None else f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(box.Unavailable, match=re.escape(told)):
        Examiner(boxed=True)
    (layer,) = box.layers()
    assert not layer.holds
    assert told in layer.words


def test_doctor_shows_the_layers(kata: Kata) -> None:
    """`kata doctor` tries each layer; none of them is needed to grade one's own files."""
    done = kata("doctor", "--json")
    assert done.returncode == 0, done.stdout
    shown = {c["name"]: c for c in json.loads(done.stdout)["checks"] if "box: " in c["name"]}
    assert "box: bubblewrap" in shown
    assert not any(check["needed"] for check in shown.values())
    if shown["box: bubblewrap"]["ok"]:
        assert len(shown) > 10


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_of_system_calls(machine: str) -> None:
    """The filter's numbers are the kernel's."""
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"no {header} here")
    told = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    at = locks.MACHINES[machine]
    known = {name: n[at] for name, n in locks.DENIED.items() if name in told}
    assert known == {name: int(told[name]) for name in known}
    assert len(known) > 60
    assert int(told["clone"]) == locks.CLONE[at]
    if machine == platform.machine():
        assert int(told.get("landlock_create_ruleset", 444)) == 444


@pytest.mark.long
def test_a_process_that_is_killed_takes_its_box_along(boxed: Examiner) -> None:
    """After `kill -9` of an examiner nothing of its box lives."""
    script = (
        "import os, signal; from grader.exam.examiner import Examiner\n"
        "e = Examiner(boxed=True); n = e.nursery(); print(n.process.pid, n.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(CLONE)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    outer, inner = map(int, done.stdout.split())
    for _ in range(100):
        if not os.path.exists(f"/proc/{outer}") and not os.path.exists(f"/proc/{inner}"):
            break
        subprocess.run(["sleep", "0.05"], check=True)
    assert not os.path.exists(f"/proc/{outer}")
    assert not os.path.exists(f"/proc/{inner}")


AS_NOBODY = """
import sys
from grader import content
from grader.exam.examiner import Examiner
with Examiner(boxed=True) as examiner:
    for layer in examiner.nursery().layers:
        print(layer.name, layer.holds, layer.words)
    good = examiner.grade("numpy_lora", content.solution("numpy_lora").read_bytes(), seed=7)
    for name in ("memory_that_is_shared", "fork_bomb", "memory_in_a_file", "tmp_filled"):
        source = open(f"tests/hostile/lora_linear/{name}.py", "rb").read()
        print(name, examiner.grade("lora_linear", source, seed=7).passed)
    print("good", good.passed, good.error)
"""


@pytest.mark.long
@pytest.mark.skipif(os.getuid() != 0, reason="the other tests are made by an ordinary user")
def test_an_ordinary_user_has_the_box(boxed: Examiner, tmp_path: Path) -> None:
    """All of it holds without root's rights, too: with a limit of address space, where no control
    group may be made."""
    setpriv, unshare = shutil.which("setpriv"), shutil.which("unshare")
    if not setpriv or not unshare:
        pytest.skip("needs setpriv and unshare")
    home = tmp_path / "home"
    home.mkdir()
    for place in (home, tmp_path, tmp_path.parent, tmp_path.parent.parent):
        place.chmod(0o777)
    # Python may lie in root's home, which is shown here without all the rest of it.
    base = os.path.realpath(sys.base_prefix)
    shown = ""
    if base.startswith("/root/"):
        kept = tmp_path / "python"
        kept.mkdir()
        shown = (
            f"mount --bind {base} {kept} && mount -t tmpfs -o mode=755 tmpfs /root && "
            f"mkdir -p {base} && mount --bind {kept} {base} && "
        )
    command = (
        f"{shown}exec {setpriv} --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all "
        f'{sys.executable} -c "$1"'
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CLONE), "HOME": str(home)}
    environment["TMPDIR"] = str(home)
    done = subprocess.run(
        [unshare, "-m", "--propagation", "private", "sh", "-c", command, "sh", AS_NOBODY],
        env=environment,
        cwd=CLONE,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "False" not in re.sub(r"(?m)^(memory_|fork_|tmp_).*False$", "", done.stdout)
    assert "good True None" in done.stdout
    assert "memory_that_is_shared False" in done.stdout
    assert "fork_bomb False" in done.stdout


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import gc\n", ["line 1: gc"]),
        ("import sys\nx = sys._getframe(1)\n", ["line 2: _getframe"]),
        ("import sys\nsys.modules['torch'] = 1\n", ["line 2: sys.modules"]),
        ("a = open('/proc/self/mem')\n", ["line 1: '/proc/self/mem'"]),
        ("from ctypes import CDLL as C\nimport inspect\ninspect.stack()\n", 2),
        ("f = getattr(print, '__globals__')\nb = __builtins__\n", 2),
        ("import math, torch\nfrom torch import nn\n# gc, ctypes\n", []),
        ("x = getattr(f, '__glo' + 'bals_' + '_')\n", ["line 1: '__globals__'"]),
        ("exec('x = 1')\nmodel.eval()\n", ["line 1: exec"]),
        ("x = 'a'" + " + 'a'" * 900 + "\n", []),
        ("def broken(:\n", []),
    ],
)
def test_marks(source: str, found: list[str] | int) -> None:
    """What reaches for its surroundings is marked with its line; comments and words are not."""
    made = list(marks.of(source.encode()))
    assert (len(made) if isinstance(found, int) else made) == found


def test_flags_are_read_past_a_class() -> None:
    """The second way reads what torch holds, whatever a class says of itself."""
    import torch
    from torch import nn

    class Says(nn.Parameter):
        requires_grad = property(lambda self: False)

    class Hides(nn.Linear):
        def named_parameters(self, *_: object, **__: object) -> Iterator[tuple[str, nn.Parameter]]:
            return iter(())

    layer = Hides(2, 2)
    layer.weight.__class__ = Says
    assert not layer.weight.requires_grad
    assert asking.tell(layer.weight, "requires_grad")
    assert [name for name, _ in asking.tell(layer, "named_parameters")()] == ["weight", "bias"]
    plain = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2)))
    for name in ("named_parameters", "named_modules", "named_buffers", "named_children"):
        assert dict(asking.tell(plain, name)()) == dict(getattr(plain, name)())
    for name in ("parameters", "modules", "buffers", "children"):
        assert list(map(id, asking.tell(plain, name)())) == list(map(id, getattr(plain, name)()))
    assert asking.tell(plain.eval(), "training") is False
    assert asking.isinstance_(layer.weight, (int, nn.Parameter))
    assert not asking.isinstance_(torch.ones(1), nn.Parameter)
