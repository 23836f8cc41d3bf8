"""Practice in a notebook: `%load_ext grader.notebook` in a real kernel, one for all tests."""

import contextlib
import html
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import run_kata

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

from grader import content  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Jupyter has some

SLUG = "ia3_linear"
LINE = "        return self.base(x) * self.scale"
RIGHT = content.solution(SLUG).read_text()
WRONG = RIGHT.replace(LINE, LINE.replace("*", "+"))
EXAMPLE = Path(__file__).parent.parent / "docs" / "notebook.ipynb"
PATIENCE_S = 60.0


class Shown:
    """What a cell has shown."""

    def __init__(self, cell: Any) -> None:
        self.errors = ["\n".join(o.traceback) for o in cell.outputs if o.output_type == "error"]
        self.stream = "".join(o.text for o in cell.outputs if o.output_type == "stream")
        data = [o.data for o in cell.outputs if "data" in o]
        self.pages = [d for d in data if "text/html" in d]
        self.text = self.pages[-1]["text/plain"] if self.pages else ""
        self.html = self.pages[-1]["text/html"] if self.pages else ""
        self.value = data[-1]["text/plain"] if data else ""


class Notebook:
    """A kernel with the extension, in a folder and a home of its own."""

    def __init__(self, root: Path) -> None:
        self.work = root / "work"
        self.work.mkdir()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KATA_", "NO_COLOR"))}
        mine = {"KATA_HOME": root / "home", "KATA_WORKSPACE": self.work, "IPYTHONDIR": root / "ip"}
        self.environment = {**kept, "COLUMNS": "88", **{k: str(v) for k, v in mine.items()}}
        self.client = nbclient.NotebookClient(
            nbformat.v4.new_notebook(),
            timeout=int(PATIENCE_S),
            kernel_name="python3",
            allow_errors=True,
            resources={"metadata": {"path": str(self.work)}},
        )

    @contextlib.contextmanager
    def running(self) -> Iterator["Notebook"]:
        with self.client.setup_kernel(env=self.environment):
            self.pid = int(self.run("import os; os.getpid()").value)
            shown = self.run("%load_ext grader.notebook")
            assert (shown.errors, shown.stream) == ([], "")
            yield self

    def run(self, source: str) -> Shown:
        """A cell at the end, run."""
        cells = self.client.nb.cells
        cells.append(nbformat.v4.new_code_cell(source))
        self.client.execute_cell(cells[-1], len(cells) - 1)
        return Shown(cells[-1])

    def grader(self) -> int:
        """The process that grades: the kernel's one child."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/children")
        (pid,) = (int(word) for task in tasks for word in task.read_text().split())
        return pid

    def kata(self, *arguments: str) -> str:
        """What `kata` says in a terminal beside it."""
        done = run_kata(arguments, self.work, self.environment)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with Notebook(tmp_path_factory.mktemp("notebook")).running() as running:
        yield running


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _until_gone(*pids: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while not all(map(_gone, pids)):
        assert time.monotonic() < end, "a process is left"
        time.sleep(0.02)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    _until_gone(pid)


def _words(page: str) -> list[str]:
    """A page without what differs from one grading to the next."""
    page = re.sub(r"attempt \d+|graded in [\d.]+ s|--seed \d+| · due again [^·\n]*", "", page)
    return re.sub(r"-?\d+\.?\d*(e-?\d+)?", "N", page).split()


def test_the_example_runs(notebook: Notebook) -> None:
    """Each cell of docs/notebook.ipynb, in a kernel that has loaded the extension already."""
    shown = [
        notebook.run(cell.source)
        for cell in nbformat.read(EXAMPLE, as_version=4).cells
        if cell.cell_type == "code" and not cell.source.startswith("%load_ext")
    ]
    assert [s.errors for s in shown] == [[]] * len(shown)
    hint, wrong, tried, again, status = shown
    assert hint.text.startswith("Hint 1 of")
    assert "The scale is added, not multiplied" in wrong.text
    assert tried.value.startswith("tensor(1.")
    assert _words(again.text)[:20] == _words(wrong.text)[:20]
    assert re.search(rf"{SLUG} +\d+ tried", status.text)


def test_a_cell_is_graded_as_kata_run_grades(notebook: Notebook) -> None:
    """It becomes the file, what stood there is kept, the attempt is stored and the kata rated;
    both looks say what the terminal says; the cell is run here, too."""
    path = notebook.work / f"{SLUG}.py"
    path.write_text("mine = 'from the editor'\n")
    shown = notebook.run(f"%%kata {SLUG}\n{RIGHT}")
    assert shown.errors == []
    assert len(shown.pages) == 1
    assert path.read_text() == RIGHT
    assert "✓ ia3_linear: passed, complete." in shown.text
    stripped = html.unescape(re.sub(r"<[^>]*>", "", shown.html))
    assert stripped.strip() == shown.text.strip()
    assert notebook.run(f"{SLUG[:3].upper()}Linear.__name__").value == "'IA3Linear'"
    assert "kata:ia3_linear" in notebook.kata("export", "json")
    kept = json.loads(notebook.kata("history", SLUG, "--json"))
    graded = {attempt["version"] for attempt in kept["attempts"]}
    mine = [v for v in kept["versions"] if v["number"] not in graded]
    assert [v["reason"] for v in mine] == ["notebook"]
    number = mine[0]["number"]
    assert f"is version {number} again." in notebook.kata("restore", SLUG, str(number))
    assert path.read_text() == "mine = 'from the editor'\n"
    path.write_text(RIGHT)
    page = notebook.kata("run", SLUG)
    checked = notebook.run(f"check('{SLUG}')")
    assert _words(checked.text) == _words(page)
    assert re.search(rf"{SLUG} +passed", notebook.run("status()").text)


def test_what_was_printed_is_text(notebook: Notebook) -> None:
    """Markup and escapes of the learner's are shown, and mean nothing."""
    noise = "<script>alert(1)</script>\\x1b[31mred</pre><b>"
    loud = WRONG.replace(
        "        return self.base(x) +", f"        print('{noise}')\n{LINE[:24]} +"
    )
    assert loud != WRONG
    shown = notebook.run(f"%%kata {SLUG}\n{loud}")
    assert "<script>alert(1)</script>red</pre><b>" in shown.text
    assert "<script" not in shown.html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;red&lt;/pre&gt;&lt;b&gt;" in shown.html
    assert shown.html.count("</pre>") == 1
    assert "\x1b" not in shown.text + shown.html


def test_what_the_kernel_changes_changes_nothing(notebook: Notebook) -> None:
    """Neither what is graded now, nor a process that has to be started anew."""
    patched = notebook.run(
        "import subprocess, sys, os, socket, torch\n"
        "kept = [(m, n, getattr(m, n)) for m, n in [(torch, 'allclose'), (torch, 'equal'),\n"
        "    (torch.nn.functional, 'linear'), (subprocess, 'Popen'), (os, 'posix_spawn'),\n"
        "    (socket, 'socketpair')]]\n"
        "kept_path = sys.path[:]\n"
        "for module, name, _ in kept:\n"
        "    setattr(module, name, lambda *a, **k: True)\n"
        "sys.path[:] = []\n"
        "torch.Tensor.__eq__ = lambda *a: True\n"
    )
    assert patched.errors == []
    for _ in range(2):
        assert "added, not multiplied" in notebook.run(f"%%kata {SLUG}\n{WRONG}").text
        assert "passed, complete" in notebook.run(f"%%kata {SLUG}\n{RIGHT}").text
        _kill(notebook.grader())
    undone = "[setattr(m, n, f) for m, n, f in kept]; sys.path[:] = kept_path; del kept\n"
    assert notebook.run(f"{undone}del torch.Tensor.__eq__").errors == []


def test_a_process_that_died_is_started_again(notebook: Notebook) -> None:
    """One that dies between two cells is not missed; the same one serves cell after cell."""
    notebook.run("hint('lora_linear')")
    before = notebook.grader()
    _kill(before)
    assert "Hint 2 of" in notebook.run("hint('lora_linear')").text
    after = notebook.grader()
    assert after != before
    assert "Hint 3 of" in notebook.run("hint('lora_linear')").text
    assert notebook.grader() == after


def test_an_interrupt_ends_the_grading(notebook: Notebook) -> None:
    """Said in a line; nothing of it is left, no attempt is stored, and the next cell is graded."""
    begun = notebook.work / "begun"
    sleeps = RIGHT.replace(
        LINE,
        f"        import os, time\n        open({str(begun)!r}, 'w').write(str(os.getpid()))\n"
        f"        time.sleep(1000)\n{LINE}",
    )
    attempts = re.search(r"(\d+) attempt", notebook.kata("history", SLUG))

    def interrupt() -> None:
        end = time.monotonic() + PATIENCE_S
        while not (begun.exists() and begun.read_text()) and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(notebook.pid, signal.SIGINT)

    hand = threading.Thread(target=interrupt)
    hand.start()
    shown = notebook.run(f"%%kata {SLUG}\n{sleeps}")
    hand.join()
    assert shown.errors == ["Interrupted: nothing was graded."]
    assert shown.pages == []
    _until_gone(int(begun.read_text()))
    now = re.search(r"(\d+) attempt", notebook.kata("history", SLUG))
    assert (now and now[1]) == (attempts and attempts[1])
    assert "passed, complete" in notebook.run(f"%%kata {SLUG}\n{RIGHT}").text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("%%kata\nx = 1", "error: Which kata? Say `%%kata SLUG`; `status()` names them."),
        ("%%kata lora_liner\nx = 1", "error: No kata is called 'lora_liner'. Did you mean lora_"),
        (f"%%kata {SLUG}\n  \n", "error: The cell is empty: nothing was written."),
        ("check(int)", 'error: A kata is named by a text: check("lora_linear").'),
        ("check('adapter_block')", "error: adapter_block.py does not exist. `kata start adapter"),
        (
            "os.environ['KATA_WORKSPACE'] = '/no/such'\ntry:\n    status(); hint('galore')\n"
            "    check('galore')\nfinally:\n    os.environ['KATA_WORKSPACE'] = os.getcwd()",
            "error: The workspace /no/such (from KATA_WORKSPACE) is no folder.",
        ),
    ],
)
def test_errors_are_a_line_or_two(notebook: Notebook, source: str, said: str) -> None:
    """Without a traceback of ours; they end a `Run All`."""
    (error,) = notebook.run(source).errors
    assert error.startswith(said)
    assert len(error.splitlines()) <= 2
    assert "Traceback" not in error


def test_a_cell_needs_its_own_imports(notebook: Notebook) -> None:
    """What another cell has imported is not there, and that is said; such a cell is not run."""
    bare = RIGHT.replace("import torch\n", "").replace("import torch.nn as nn\n", "")
    shown = notebook.run(f"%%kata {SLUG}\nreached = True\n{bare}")
    assert "NameError: name 'nn' is not defined" in shown.text
    assert "what it uses must be imported in it." in shown.text
    assert notebook.run("'reached' in globals() and reached").value == "False"


def test_names_of_the_learner_stay(notebook: Notebook) -> None:
    """A name that is taken is not taken away; how ours is come by is said."""
    shown = notebook.run("status = 'mine'\n%reload_ext grader.notebook")
    assert shown.stream.strip() == (
        "Names of yours are left as they are; for ours: `from grader.notebook import status`."
    )
    assert notebook.run("status").value == "'mine'"
    assert "katas passed" in notebook.run("from grader.notebook import status\nstatus()").text


def test_it_ends_with_the_kernel(notebook: Notebook) -> None:
    """However that ends; also where a fork of it lives on."""
    source = (
        "import os, sys, time\n"
        "from grader.notebook.worker import Worker\n"
        "worker = Worker()\n"
        "worker.ask('status')\n"
        "fork = os.fork()\n"
        "if not fork:\n"
        "    time.sleep(1000)\n"
        "print(worker._pid, fork, flush=True)\n"
        "time.sleep(1000)\n"
    )
    kernel = subprocess.Popen(
        [sys.executable, "-c", source], env=notebook.environment, stdout=subprocess.PIPE, text=True
    )
    assert kernel.stdout is not None
    grader, fork = map(int, kernel.stdout.readline().split())
    below = Path(f"/proc/{grader}/task/{grader}/children").read_text().split()
    assert below
    kernel.kill()
    kernel.wait()
    kernel.stdout.close()
    _until_gone(grader, *map(int, below))
    os.kill(fork, signal.SIGKILL)
