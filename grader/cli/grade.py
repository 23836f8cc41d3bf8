"""grade: many people's files."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from grader.cli import common, terminal
from grader.errors import UsageFault
from grader.views.plain import counted, wrapped

if TYPE_CHECKING:
    from grader.batch.cluster import Cluster
    from grader.batch.intake import Taken
    from grader.batch.records import Options
    from grader.batch.running import Crew
    from grader.store.results import Results

_OUT = Path("kata-grades")
_LEVELS = ("full", "named", "score")
_FORMATS = ("junit", "actions", "gradescope", "exercism", "classroom")


@click.command("grade")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=_OUT,
    show_default=True,
    help="Where the results go, and stay for the next time.",
)
@click.option(
    "--roster",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="CSV: who, which katas. Others are named and not graded.",
)
@click.option("--kata", "katas", type=common.Slug(), multiple=True, help="These katas alone.")
@click.option(
    "--seeds",
    metavar="N",
    type=click.IntRange(1, 20),
    help="Grade each with N draws of its inputs (2); all must pass.",
)
@click.option("--jobs", metavar="N", type=click.IntRange(1, 256), help="Processes (all cores).")
@click.option("--scheduler", metavar="ADDRESS", help="Grade on a Dask cluster, as tcp://host:8786.")
@click.option(
    "--resume", is_flag=True, help="Go on with what was broken off; PATH may be left out."
)
@click.option("--force", is_flag=True, help="Grade anew what has not changed, too.")
@click.option("--no-sandbox", is_flag=True, help="Run the files with your rights: only if trusted.")
@click.option(
    "--feedback",
    type=click.Choice(_LEVELS),
    help="How much what learners get tells: never inputs, values or tests (full).",
)
@click.option(
    "--format",
    "also",
    type=click.Choice(_FORMATS),
    multiple=True,
    help="Write this too; may be given more than once.",
)
@common.as_json
def grade_command(
    paths: tuple[Path, ...],
    out: Path,
    roster: Path | None,
    katas: tuple[str, ...],
    seeds: int | None,
    jobs: int | None,
    scheduler: str | None,
    resume: bool,
    force: bool,
    no_sandbox: bool,
    feedback: str | None,
    also: tuple[str, ...],
    json_: bool,
) -> int:
    """Grade other people's files: a class, or candidates. Each runs in a sandbox.

    PATH is a folder (a sub-folder for each person that holds SLUG.py, or files NAME__SLUG.py), a
    zip or tar archive of such, a Jupyter notebook, or one file.

    Results are stored as they come. Once more with the same --out only what has changed is graded.
    The exit code is 0 when all is graded, whatever the verdicts, 2 for wrong usage, 3 if the
    grader failed.
    """
    from grader.batch import records
    from grader.batch.records import Options
    from grader.store.results import Results

    if not paths and not resume:
        raise UsageFault("Which files? `kata grade PATH...`; --resume alone goes on.")
    if scheduler and jobs:
        raise UsageFault("--jobs is for this machine alone; a cluster has the workers it has.")
    given = {
        "paths": tuple(str(path.absolute()) for path in paths) or None,
        "roster": None if roster is None else str(roster.absolute()),
        "katas": tuple(dict.fromkeys(katas)) or None,
        "seeds": seeds,
        "boxed": False if no_sandbox else None,
        "feedback": feedback,
        "formats": tuple(dict.fromkeys(also)) or None,
    }
    options = Options()
    if resume:
        with Results.open(out) as stored:
            options = stored.get("options", Options) or options
    options = options.but(**given)
    if not options.paths:
        raise UsageFault(f"{out} holds no run to go on with: name the files.")
    taken = _taken(options)
    with Results.writing(out) as results:
        records.begin(results, taken, options, force=force)
        del taken  # the sources; processes are forked now
        try:
            _grade(results, options, jobs, scheduler)
        except KeyboardInterrupt:
            left = counted(len(results.missing()), "grading")
            terminal.note(
                f"Stopped; what was graded is stored. {left} to make: "
                f"`kata grade --resume --out {out}` goes on."
            )
            raise
        written = _write(results, options, out)
        if json_:
            terminal.say_json((out / "results.json").read_bytes().rstrip())
        else:
            _show(results, out, written)
    return 0


def _taken(options: "Options") -> "Taken":
    """What is handed in."""
    from grader.batch import intake, roster

    people = None if options.roster is None else roster.read(Path(options.roster))
    return intake.take([Path(p) for p in options.paths], roster=people, only=options.katas)


def _grade(results: "Results", options: "Options", jobs: int | None, scheduler: str | None) -> None:
    """Make the gradings that are missing, and store each as it comes."""
    missing = results.missing()
    if not missing:
        return
    from grader.batch import running
    from grader.cli.terminal.bar import Bar

    graders: Cluster | Crew
    if scheduler is None:
        from grader.exam.nursery import cores

        graders = running.Crew(min(jobs or cores(), len(missing)), options.boxed)
    else:
        graders = _cluster(scheduler, sorted({one.slug for one in missing}), options.boxed)
    refused: dict[str, str] = getattr(graders, "refused", {})
    told = 0
    with graders, Bar(len(missing), "graded") as bar:
        for one in running.finish(results, missing, graders):
            if one is None:
                bar.tick()
            else:
                bar.step(f"{one.who} {one.slug}")
            for worker, why in [*refused.items()][told:]:
                terminal.note(f"The worker {worker} takes no part. {why}")
            told = len(refused)
    if refused:
        notes = results.get("notes", list[str]) or []
        notes += [f"The worker {worker} took no part. {why}" for worker, why in refused.items()]
        results.set("notes", notes)


def _cluster(address: str, slugs: list[str], boxed: bool) -> "Cluster":
    try:
        from grader.batch.cluster import Cluster
    except ModuleNotFoundError as error:
        raise UsageFault(
            "--scheduler needs Dask, here and on the workers: pip install 'lora-kata[cluster]'."
        ) from error
    return Cluster(address, slugs, boxed)


def _write(results: "Results", options: "Options", out: Path) -> list[str]:
    """Everything for people and programs to read; gives what it is called."""
    from grader.batch import formats
    from grader.batch.feedback import Told
    from grader.views import grades_html

    formats.put(out / "report.html", grades_html.page(results))
    return ["report.html", *formats.write(results, out, Told(options.feedback), options.formats)]


def _show(results: "Results", out: Path, written: list[str]) -> None:
    from grader.views import grades

    found = grades.Grades(results.rows())
    notes = results.get("notes", list[str]) or []
    terminal.say(*grades.page(found, notes, terminal.width(), terminal.colour()))
    text = f"In {out}: {', '.join(written)}; all of it in results.sqlite."
    terminal.say(*wrapped(text, terminal.width()))
