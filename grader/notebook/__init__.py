"""Practice in a notebook: `%load_ext grader.notebook`.

    %%kata lora_linear          the cell is the kata's file: written to the workspace, graded
    check("lora_linear")        grades the workspace's file, as `kata run` does
    hint("lora_linear")         the next hint
    status()                    the katas, as `kata list` shows them

What judges, stores and writes the pages is another process (`serve.py`), so nothing that is
changed in the kernel changes a verdict.
"""

from typing import Any

try:
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.display import display
except ImportError as error:
    raise ImportError("A notebook needs IPython: pip install 'lora-kata[notebook]'") from error

from grader.notebook.worker import Fault, Worker

__all__ = ["check", "hint", "status"]

_worker = Worker()


class _Page:
    """A page of ours, as a notebook shows it and as text."""

    def __init__(self, text: str, html: str) -> None:
        self._text, self._html = text, html

    def __repr__(self) -> str:
        return self._text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self._text, "text/html": self._html}


def check(slug: str | None = None) -> None:
    """Grade the workspace's file of a kata, or of the current one; an attempt like any other."""
    _show("check", slug=slug)


def hint(slug: str | None = None) -> None:
    """Show the next hint for a kata, or for the current one, which is noted as seen."""
    _show("hint", slug=slug)


def status() -> None:
    """Show the katas with status, best time and par time."""
    _show("status")


def _show(what: str, **words: str | None) -> dict[str, Any]:
    if not all(isinstance(word, str | None) for word in words.values()):
        raise Fault(f'A kata is named by a text: {what}("lora_linear").')
    reply = _worker.ask(what, **words)
    display(_Page(reply["text"], reply["html"]))  # type: ignore[no-untyped-call]
    return reply


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Make `%%kata`, and the functions where no name of the learner's would be lost."""

    def kata(line: str, cell: str) -> None:
        """Grade the cell as the file of a kata: `%%kata lora_linear`.

        It becomes the workspace's file (what stood there is kept as a version), is graded by
        itself, so that it needs its own imports, and counts as an attempt. If it could be loaded
        it is run here, too.
        """
        if _show("cell", slug=line.strip(), source=cell)["loads"]:
            shell.run_cell(cell)  # type: ignore[no-untyped-call]

    shell.register_magic_function(kata, "cell", "kata")  # type: ignore[arg-type]
    ours = {"check": check, "hint": hint, "status": status}
    there = shell.user_ns
    taken = [n for n, f in ours.items() if getattr(there.get(n, f), "__module__", "") != __name__]
    there.update({name: function for name, function in ours.items() if name not in taken})
    if taken:
        names = ", ".join(f"`from grader.notebook import {name}`" for name in taken)
        print(f"Names of yours are left as they are; for ours: {names}.")
    _worker.start()


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """End the process that grades."""
    _worker.end()
