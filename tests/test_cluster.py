"""`kata grade --scheduler`: a real Dask scheduler with workers as processes, which die, lack the
box, are of another version, or never answer; no submission is lost, none is graded twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from classes import RIGHT, SLUG, WRONG, graded, lay, outcomes
from conftest import Kata

from grader import content
from grader.batch.running import Task
from grader.errors import GraderError
from grader.exam import box

pytest.importorskip("distributed")
from distributed.scheduler import KilledWorker

from grader.batch.cluster import Answer, Cluster

PATIENCE_S = 100.0


class Dask:
    """A scheduler and its workers."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.file = folder / "scheduler.json"
        words = ["--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--no-show"]
        self.scheduler = self._start("scheduler", *words)

    def _start(self, kind: str, *words: str, **extra: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "dask.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", kind, *words, "--scheduler-file", str(self.file)],
                env={**self.environment, **extra},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=self.folder,
            )

    def worker(self, name: str, **extra: str) -> None:
        words = ["--name", name, "--no-nanny", "--nthreads", "1", "--no-dashboard"]
        words += ["--host", "127.0.0.1", "--local-directory", str(self.folder)]
        self.workers[name] = self._start("worker", *words, **extra)

    @property
    def address(self) -> str:
        end = time.monotonic() + PATIENCE_S
        while not self.file.exists() or not self.file.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        address: str = json.loads(self.file.read_text())["address"]
        return address

    def registered(self) -> None:
        """Wait until the scheduler knows all workers that were started."""
        end = time.monotonic() + PATIENCE_S
        while (self.folder / "dask.log").read_text().count("Registered to:") < len(self.workers):
            assert time.monotonic() < end
            time.sleep(0.05)

    def end(self) -> None:
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.wait()


@contextmanager
def dask(folder: Path, environment: dict[str, str]) -> Iterator[Dask]:
    folder.mkdir()
    cluster = Dask(folder, environment)
    try:
        yield cluster
    finally:
        cluster.end()


def _family(pid: int) -> list[int]:
    """Living processes below one."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *_family(child)]
    return found


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.long
def test_three_workers_one_killed_one_without_the_box(
    kata: Kata, environment: dict[str, str], tmp_path: Path
) -> None:
    """One worker is killed in the middle, one has no bubblewrap: the others make every grading,
    once, with the verdicts that are right; the run says who took no part, and why. Nothing of it
    is left on the workers."""
    if not all(layer.holds for layer in box.layers() if layer.needed):
        pytest.skip("no sandbox on this machine: see `kata doctor`")
    people = {f"p{n}": WRONG if n % 3 == 1 else RIGHT for n in range(8)}
    files = {f"{who}/numpy_lora.py": s + f"# {who}\n".encode() for who, s in people.items()}
    folder, out = lay(tmp_path / "class", files), tmp_path / "out"
    empty = tmp_path / "empty"
    empty.mkdir()
    with dask(tmp_path / "dask", environment) as cluster:
        cluster.worker("good")
        cluster.worker("dying")
        cluster.worker("bare", PATH=str(empty))
        cluster.registered()
        command = ["grade", str(folder), "--out", str(out), "--seeds", "1"]
        process = subprocess.Popen(
            [sys.executable, "-m", "grader", *command, "--scheduler", cluster.address],
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + PATIENCE_S
        while not graded(out):
            assert time.monotonic() < end
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        before = len(graded(out))
        below = _family(cluster.workers["dying"].pid)
        cluster.workers["dying"].send_signal(signal.SIGKILL)
        page, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        assert before < len(people)
        assert "takes no part. The box needs bubblewrap" in said
        assert "took no part. The box needs bubblewrap" in page
        assert "Traceback" not in said
        assert below
        while not all(map(_gone, [*below, *_family(cluster.workers["good"].pid)])):
            assert time.monotonic() < end
            time.sleep(0.05)
    wanted = {who: "passed" if source is RIGHT else "failed" for who, source in people.items()}
    assert outcomes(out) == wanted
    assert len(graded(out)) == len(people)


@pytest.mark.long
def test_workers_of_another_version_and_those_that_hang_take_no_part(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """A worker whose suite is another one is refused, with that reason; what a worker has that
    never answers is given to one that joins later. Each task has one result. Once no worker is
    left that may grade, the run ends and says why."""
    package = content.SUITES.parent
    other = tmp_path / "other"
    shutil.copytree(package, other / "grader", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("solutions", "katas", "questions"):
        (other / name).symlink_to(package.parent / name)
    with (other / "grader" / "suites" / f"test_{SLUG}.py").open("a") as suite:
        suite.write("# another version\n")
    tasks = [Task(number, SLUG, RIGHT, number) for number in range(3)]
    with dask(tmp_path / "dask", environment) as cluster:
        cluster.worker("other", PYTHONPATH=f"{other}:{environment.get('PYTHONPATH', '')}")
        cluster.worker("stuck")
        stuck = cluster.workers["stuck"]
        cluster.registered()
        done = []
        with Cluster(cluster.address, [SLUG], boxed=False, patience_s=3.0) as run:
            for one in run.grade(tasks):
                if one is not None:
                    done.append(one)
                    assert "good" in cluster.workers or not tasks
                elif run._given and "good" not in cluster.workers:
                    stuck.send_signal(signal.SIGSTOP)
                    run.patience_s = PATIENCE_S  # for those after it
                    cluster.worker("good")
            stuck.send_signal(signal.SIGCONT)
        reasons = sorted(run.refused.values())
        assert sorted(one.task.id for one in done) == [0, 1, 2]
        assert all(one.verdict and json.loads(one.verdict)["passed"] for one in done)
        assert len(reasons) == 2
        assert "not answer within" in reasons[0]
        assert "not those of the machine that asks" in reasons[1]
        for name in ("stuck", "good"):
            cluster.workers[name].kill()
            cluster.workers[name].wait()
        with (
            Cluster(cluster.address, [SLUG], boxed=False, grace_s=0.0) as run,
            pytest.raises(GraderError, match="No worker of the cluster can grade") as ended,
        ):
            list(run.grade(tasks))
        assert "not those of the machine that asks" in str(ended.value)
        with Cluster(cluster.address, [SLUG], boxed=False) as run:
            going = run.grade(tasks)
            assert next(going) is None
            cluster.scheduler.kill()
            with pytest.raises(GraderError, match="does not answer any more"):
                list(going)


class _Scheduler:
    """A client's stand-in: each task ends at once, with the next of these ends."""

    def __init__(self, ends: list[Answer | Exception]) -> None:
        self.ends = ends
        self.asked: list[list[str]] = []  # which workers might have had each
        self.status = "running"

    def nthreads(self) -> dict[str, int]:
        return {"a": 1, "b": 1}

    def get_events(self, _: str) -> list[tuple[int, dict[str, object]]]:
        return [(0, {"worker": name, "layers": []}) for name in "ab"]

    def submit(self, *_: object, key: str, workers: list[str], **__: object) -> "_Future":
        self.asked.append(workers)
        return _Future(key, self.ends.pop(0))


class _Future:
    def __init__(self, key: str, end: Answer | Exception) -> None:
        self.key, self.end = key, end
        self.status = "finished" if isinstance(end, Answer) else "error"

    def add_done_callback(self, call: Callable[["_Future"], None]) -> None:
        call(self)

    def result(self) -> object:
        return self.end

    def exception(self) -> object:
        return self.end


@pytest.mark.parametrize(
    ("ends", "trouble", "asked"),
    [
        ([Answer("a", "{}")], "", ["ab"]),
        ([Answer("a", trouble="It broke."), Answer("b", "{}")], "", ["ab", "b"]),
        ([Answer("a", trouble="It broke."), Answer("b", trouble="So.")], "So.", ["ab", "b"]),
        ([Answer("b", unfit="No."), Answer("a", "{}")], "", ["ab", "a"]),
        (
            [Answer("b", unfit="No."), Answer("a", trouble="It broke."), Answer("a", "{}")],
            "",
            ["ab", "a", "a"],
        ),
        ([KilledWorker("x", None, 3)] * 2, "died, one after another", ["ab", "ab"]),  # type: ignore[arg-type]
        ([ZeroDivisionError("by 0")] * 2, "ZeroDivisionError: by 0", ["ab", "ab"]),
    ],
)
def test_what_comes_of_a_task(
    ends: list[Answer | Exception], trouble: str, asked: list[str]
) -> None:
    """What brings no verdict is tried once more, elsewhere if there is another worker; a worker
    that is unfit costs the task nothing, and gets no more."""
    run = Cluster("nowhere", [])
    scheduler = _Scheduler([*ends])
    run._client, run._name = scheduler, "run"  # type: ignore[assignment]
    done = [one for one in run.grade([Task(7, SLUG, RIGHT, 0)]) if one is not None]
    assert [one.task.id for one in done] == [7]
    assert trouble in done[0].trouble
    assert (done[0].verdict is None) == bool(trouble)
    assert ["".join(workers) for workers in scheduler.asked] == asked
    assert scheduler.ends == []


def test_wrong_use_of_a_cluster(kata: Kata, tmp_path: Path) -> None:
    """No scheduler at the address, processes of this machine as well, and to lack Dask are wrong
    usage, each with a plain line."""
    folder = lay(tmp_path / "class", {"ada/numpy_lora.py": RIGHT})
    command = ("grade", str(folder), "--out", str(tmp_path / "out"), "--scheduler")
    for words, said in (
        (["tcp://127.0.0.1:9"], "No Dask scheduler answers at tcp://127.0.0.1:9."),
        (["nonsense://x"], "No Dask scheduler answers at nonsense://x."),
        (["tcp://127.0.0.1:9", "--jobs", "2"], "--jobs is for this machine alone"),
    ):
        done = kata(*command, *words)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr
    lay(tmp_path / "lacking", {"distributed.py": b"raise ModuleNotFoundError('distributed')"})
    path = f"{tmp_path / 'lacking'}:{os.environ.get('PYTHONPATH', '')}"
    done = kata(*command, "tcp://127.0.0.1:9", PYTHONPATH=path)
    assert (done.returncode, "pip install 'lora-kata[cluster]'" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr
