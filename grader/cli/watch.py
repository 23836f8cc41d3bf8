"""watch: grade on every save, in one warm process."""

import subprocess
import sys
from pathlib import Path

import click

from grader.cli import common, terminal
from grader.cli.edit import in_editor
from grader.cli.hint import next_hint
from grader.cli.run import current_kata, page
from grader.cli.start import begin
from grader.cli.terminal import prompts
from grader.cli.terminal.keys import REDRAW, Keys
from grader.cli.terminal.saves import Saves
from grader.errors import KataError
from grader.practice import clock, current, grading
from grader.practice.workspace import Workspace, shown
from grader.store import Store
from grader.store.attempts import Reason
from grader.views.plain import paint, wrapped

_LOOK_S, _SLOWLY_S = 0.05, 1.0
_KEYS = "r run · e edit · h hint · m more · d debug · n next · q quit"


@click.command("watch")
@click.argument("slug", type=common.Slug(), required=False)
@click.option(
    "--poll",
    metavar="SECONDS",
    type=click.FloatRange(0.01, 60),
    is_flag=False,
    flag_value=_SLOWLY_S,
    default=_LOOK_S,
    help="Look at the file this often (0.05); without a number once a second, for a slow disk.",
)
@common.in_workspace
def watch_command(slug: str | None, poll: float, workspace: Path | None) -> None:
    """Grade SLUG, or the current kata, whenever its file is saved.

    Each grading is an attempt, as with `kata run`; single keys do the rest.
    """
    space = common.find_workspace(workspace)
    slug = slug or current_kata(space)
    with grading.Bench() as bench:
        bench.ready()
        with Keys() as keys:
            _Watch(slug, space, bench, keys).until_quit(poll)


class _Watch:
    """One kata's file, and the page that is shown of it."""

    def __init__(self, slug: str, space: Workspace, bench: grading.Bench, keys: Keys) -> None:
        self.space, self.bench, self.keys = space, bench, keys
        self.in_place = terminal.live(sys.stdout)
        self.more = False
        self.take_up(slug)

    def take_up(self, slug: str, *said: str) -> None:
        """Turn to a kata, and grade it if there is something to grade."""
        self.slug, self.path = slug, self.space.path(slug)
        self.saves = Saves(self.path)
        self.graded: grading.Graded | None = None
        common.try_to_store(
            "which kata is current", lambda store: current.make(store, slug, self.space)
        )
        if current.is_begun(self.space, slug):
            self.grade()
        elif self.path.exists():
            self.show(*said, f"Waiting for {shown(self.path)}: every save is graded.")
        else:
            self.show(*said, f"Waiting for {shown(self.path)}, which is not there yet.")

    def until_quit(self, look_s: float) -> None:
        """Grade saves and follow keys."""
        while (key := self.keys.pressed(look_s)) not in ("q", "\x04"):
            if key:
                self.press(key)
            elif self.saves.came():
                self.grade()
        terminal.say("")

    def press(self, key: str) -> None:
        """What a key stands for; what goes wrong is said, and watching goes on."""
        try:
            if key == "r":
                self.grade()
            elif key == "e":
                self.edit()
            elif key == "h":
                self.show(*next_hint(self.slug))
            elif key == "d":
                self.debug()
            elif key == "n":
                self.next()
            elif key in ("m", REDRAW):
                self.more ^= key == "m"
                self.show()
        except KataError as error:
            self.show(str(error))

    def grade(self) -> None:
        """Judge the file as it is now, and show that."""
        if self.in_place:
            terminal.write("\r\x1b[K  grading …")
        try:
            self.graded = grading.attempt(self.slug, self.path, self.bench.judge, Reason.RUN)
        except KataError as error:  # the file is gone again, say
            self.show(str(error))
            return
        self.show(*([f"note: {self.graded.trouble}"] if self.graded.trouble else []))

    def edit(self) -> None:
        with self.keys.aside():
            in_editor(self.slug, self.path)
        if self.saves.came():
            self.grade()
        else:
            self.show()

    def debug(self) -> None:
        """In a process of its own: this one has suites in memory."""
        folder = str(self.space.folder)
        with self.keys.aside():
            terminal.say("")
            command = [sys.executable, "-m", "grader", "debug", self.slug, "--workspace", folder]
            subprocess.run(command, check=False)
            prompts.line("Enter goes back: ")
        self.show()

    def next(self) -> None:
        from grader.recall import agenda

        with Store.open(create=False) as store:
            slug = agenda.next_kata(store, clock.now().astimezone())
        if slug is None:
            self.show("All katas are passed and none is due.")
        else:
            self.take_up(slug, *begin(slug, self.space, Reason.START))

    def show(self, *said: str) -> None:
        """The page of the last grading, and what else there is to say."""
        width, colour = terminal.width(), terminal.colour()
        file = shown(self.path)
        rows = terminal.rows()
        lines = page(self.graded, file, self.more, width, colour, rows) if self.graded else []
        lines += [line for text in said for line in wrapped(text, width)]
        if not self.in_place:
            terminal.say(*lines, "")
            return
        keys = [paint(_KEYS, "dim", colour)] if self.keys.live else []
        terminal.write("\x1b[H\x1b[2J" + "\n".join(terminal.fitting([*lines, *keys])))
