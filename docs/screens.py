"""The pictures of the README, made from real runs.

    python docs/screens.py

Each command runs on a pseudo-terminal of its own, with a data folder and a workspace that are
thrown away, and what it shows becomes an SVG beside this file.
"""

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

from grader import content

HERE = Path(__file__).parent
COLUMNS = 92
# What a tired candidate leaves out: the scale.
MISTAKE = ("out + self.scale * F.linear", "out + F.linear")


def shown(command: list[str], work: Path, environment: dict[str, str]) -> str:
    """All that a command writes to its terminal, with the colours."""
    near, far = pty.openpty()
    ends = {"stdin": far, "stdout": far, "stderr": far}
    process = subprocess.Popen(command, cwd=work, env=environment, **ends)
    os.close(far)
    said = b""
    while True:
        try:
            piece = os.read(near, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        said += piece
    os.close(near)
    process.wait()
    return said.decode()


def draw(title: str, screens: list[tuple[str, str]], target: Path) -> None:
    """One picture of a terminal: each command behind its prompt, and what it showed."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    for typed, screen in screens:
        console.print(Text(f"$ {typed}", "bold"))
        console.print(Text.from_ansi(screen.replace("\r\n", "\n").rstrip("\n")))
    svg = console.export_svg(title=title, unique_id=target.stem)
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)  # no font from elsewhere
    target.write_text(svg, encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "katas"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KATA_", "NO_COLOR"))}
        environment = {
            **kept,
            "KATA_HOME": str(Path(folder) / "home"),
            "KATA_WORKSPACE": str(work),
            "COLUMNS": str(COLUMNS),
            "TERM": "xterm-256color",
        }
        kata = [sys.executable, "-m", "grader"]
        subprocess.run([*kata, "init", str(work)], env=environment, check=True, stdout=-3)
        subprocess.run([*kata, "start", "lora_linear"], env=environment, check=True, stdout=-3)
        right = content.solution("lora_linear").read_text(encoding="utf-8")
        wrong = right.replace(*MISTAKE)
        assert wrong != right
        file = work / "lora_linear.py"
        file.write_text(wrong, encoding="utf-8")
        failing = shown([*kata, "run", "--seed", "7"], work, environment)
        shutil.copy(content.solution("lora_linear"), file)
        passing = shown([*kata, "run"], work, environment)
        draw("kata run", [("kata run", failing)], HERE / "failing.svg")
        draw("kata run", [("kata run", passing)], HERE / "passing.svg")


if __name__ == "__main__":
    main()
