"""Runs a hidden suite against a submission and writes the verdict.

The suite, which pytest collects, runs here; the submission runs on a stage. Nothing of the
submission is ever imported, unpickled or evaluated in this process.
"""
# ruff: noqa: E402 – torch is imported first, see below

import contextlib
import gc
import hashlib
import inspect
import itertools
import marshal
import os
import random
import re
import signal
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# Before anything else of ours: the nursery is forked with torch and no more. Collecting garbage
# while it is imported would cost 0.1 s and find none.
gc.disable()
_began = time.process_time()
import torch

_TORCH_S = time.process_time() - _began
gc.freeze()
gc.enable()

from msgspec.structs import replace

from grader import catalog, content
from grader.errors import GraderError
from grader.exam import checks, difference, kit, protocol, suite
from grader.exam.channel import KEPT_OUTPUT_BYTES, Allowance, Channel, StageDied
from grader.exam.checks import Compared
from grader.exam.nursery import Nursery, NurseryGone, undumpable
from grader.exam.stage import PROBE_FILE, QUIT
from grader.exam.verdict import Check, Kind, Outcome, Part, Trouble, Verdict
from grader.harmless import harmless

# A check's processor time, and the time on the clock behind it. Some operators make torch import
# its compiler, about as much again as torch itself: a slow machine gets the time for that.
CPU_S, _WALL_S = max(3.0, 2.5 * _TORCH_S), 20.0
_GPU_FACTOR = 10
_MAX_DEATHS = 3
_PRINTED_CHARS = 4000
_DIFFERENCES = 4  # failures of which arrays are shown
_AT_A_BREAKPOINT = (
    "It stops at a breakpoint, where nobody can answer: `kata debug` makes one check again in your "
    "terminal. This is no attempt."
)


_Probes = tuple[Callable[..., Any], ...]  # one, and the helpers handed to it


class StageHandle:
    """What a check calls: `stage(probe, ...)` gives the probe's evidence."""

    def __init__(
        self, run: "Run", check: str, allowance: Allowance, seed: int, device: str
    ) -> None:
        self._run, self._check, self._allowance, self._seed = run, check, allowance, seed
        self.device = device
        self.last: Any = None  # the evidence that came last

    def __call__(self, probe: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Evidence of a probe. Raises LearnerRaised if it raised, StageDied if it ended so."""
        reply = self._ask(probe, args, kwargs)
        raised = reply.raised
        # An operation that fails may do so because an input was changed in an earlier call.
        if raised is None or (reply.changed and not raised.deliberate and not raised.missing):
            self._look_around(reply)
        if raised is not None:
            raise _raised(raised)
        return reply.evidence

    def attempt(self, probe: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Evidence of a probe, or `Raised` with the exception it ended in."""
        reply = self._ask(probe, args, kwargs)
        raised = reply.raised
        if raised is not None and raised.missing:
            raise _raised(raised)
        self._look_around(reply)
        if raised is None:
            return reply.evidence
        return checks.Raised(raised.types, raised.text, raised.unwritten, raised.deliberate)

    def _ask(self, probe: Callable[..., Any], args: Any, kwargs: Any) -> protocol.Reply:
        channel = self._run.channel()
        # Helpers of its own that a suite hands to a shared probe go along as code.
        helpers = {k: v for k, v in kwargs.items() if isinstance(v, types.FunctionType)}
        probes: _Probes = (probe, *helpers.values())
        self._run.asked.setdefault(self._check, []).append(probes)
        told = self._run.tell([probes])
        call = {
            "name": probe.__name__,
            "told": self._run.told[probes],
            "args": args,
            "kwargs": {k: v for k, v in kwargs.items() if k not in helpers},
            "helpers": {k: v.__name__ for k, v in helpers.items()},
        }
        request = {"op": "probe", "seed": self._seed, "tell": told, "probe": call}
        reply = channel.ask(request, self._allowance)
        self._run.tampered.update(reply.tampered)
        if reply.unsendable is not None:
            raise checks.CheckFailed(f"The submission's answer: {reply.unsendable}.")
        raised = reply.raised
        if raised is not None:
            if raised.memory:
                self._run.drop()
                raise StageDied(Kind.MEMORY, "It asked for more than 4 GiB of memory.")
            if QUIT in raised.types:
                self._run.drop()
                raise StageDied(Kind.BREAKPOINT, _AT_A_BREAKPOINT, late=True)
            if "builtins.SystemExit" in raised.types:
                self._run.drop()
                raise StageDied(Kind.CRASH, f"It called exit. {raised.story}")
        self.last = reply.evidence
        return reply

    def _look_around(self, reply: protocol.Reply) -> None:
        """What a call must leave as it found it: the caller's tensors, and torch's own state."""
        if reply.changed:
            names = " and ".join(f"its argument `{n}`" if n else "an input" for n in reply.changed)
            first = "changes-input" if reply.changed == ["x"] else f"{reply.changed[0]}-changed"
            bug = self._run.known(f"{first}-in-place")
            bug_id = None if bug is None else bug.id
            raise checks.CheckFailed(
                f"The call changed {names} in place: values, shape and strides of what is "
                "passed in belong to the caller.",
                bug_id,
            )
        if reply.left:
            what = " and ".join(reply.left)
            raise checks.CheckFailed(
                f"A call leaves torch's global state changed: {what}. Use a `with` block, which "
                "puts it back."
            )


def _raised(raised: protocol.Raised) -> checks.LearnerRaised:
    return checks.LearnerRaised(raised.types, raised.text, raised.story, raised.unwritten)


def _probe(*probes: Callable[..., Any]) -> tuple[bytes, bytes, dict[str, Any]]:
    """The probe's source with that of the helpers it calls, that compiled (here, once, and not
    on each stage anew), and the plain values it names."""
    if probes not in _sources:
        pieces: dict[str, str] = {}
        taken: dict[str, Callable[..., Any]] = {}
        values: dict[str, Any] = {}
        queue = list(probes)
        while queue:
            function = queue.pop()
            name = function.__name__
            if name in pieces:
                if taken[name] is not function:
                    raise checks.SuiteFault(f"two helpers of one probe are called {name}")
                continue
            pieces[name], taken[name] = suite.source(function), function
            for word in set(re.findall(r"\w+", pieces[name])):
                value = function.__globals__.get(word)
                if word in kit.__all__ or word.startswith("__"):
                    continue  # __file__ would tell where the suite lies
                if isinstance(value, types.FunctionType) and suite.owns(value, function):
                    queue.append(value)
                elif (
                    isinstance(value, (int, float, str, tuple))
                    and values.setdefault(word, value) != value
                ):
                    raise checks.SuiteFault(f"two values of one probe are called {word}")
        source = "\n\n".join(pieces.values())
        code = marshal.dumps(compile(source, PROBE_FILE, "exec", dont_inherit=True))
        _sources[probes] = (source.encode(), code, values)
    return _sources[probes]


def _two_ways(probes: _Probes) -> bytes:
    """The code of these probes that asks in two ways."""
    from grader.exam import asking

    if probes not in _rewritten:
        source = _probe(*probes)[0].decode()
        _rewritten[probes] = marshal.dumps(asking.rewritten(source, PROBE_FILE))
    return _rewritten[probes]


_rewritten: dict[_Probes, bytes] = {}
_sources: dict[_Probes, tuple[bytes, bytes, dict[str, Any]]] = {}


Asked = dict[str, list[_Probes]]  # the probes that each check has called


class Run:
    """Checks of one suite against one source, on a stage of one nursery (`lane`): records an
    outcome per check. With the probes that the solution was asked, it asks in two ways."""

    def __init__(
        self,
        examiner: "Examiner",
        slug: str,
        source: bytes | Trouble,
        filename: str,
        seed: int,
        lane: int = 0,
        asking: "Asked | None" = None,
    ) -> None:
        self.examiner, self.slug, self.source, self.filename = examiner, slug, source, filename
        self.seed, self.lane, self.asking = seed, lane, asking
        self.asked: Asked = {}
        self.told: dict[_Probes, int] = {}  # by which number the stage knows a probe
        self.tampered: set[str] = set()
        self.checks: list[Check] = []
        self.error: Trouble | None = source if isinstance(source, Trouble) else None
        self.error_at = 0  # how many checks had been made by then
        self.output = ""  # what was printed while the file was loaded
        self.printed = ""  # and by the check that is made
        self.faults: dict[str, str] = {}
        self.failed: checks.CheckFailed | None = None  # by the check that was made last
        self.compared: dict[str, Compared] = {}  # by check
        self.deaths = 0
        self.out_of_time = False
        self.on_gpu = False
        self._channel: Channel | None = None
        self._loaded = self._broken_off = False

    # The stage

    def start(self, limited: bool = True) -> None:
        """Start a stage, on which nothing of the submission is yet."""
        self._loaded = False
        self.told.clear()
        try:
            self._channel = Channel(self.examiner.nursery(self.lane), limited)
        except NurseryGone:  # the submission had stopped it; another is made
            self._channel = Channel(self.examiner.nursery(self.lane), limited)

    def load(self) -> None:
        """Have the stage load the source; `channel` awaits that."""
        assert isinstance(self.source, bytes)
        assert self._channel is not None
        load: dict[str, Any] = {
            "slug": self.slug,
            "filename": self.filename,
            "source": self.source,
            "defines": catalog.card(self.slug).defines,
        }
        told = []
        if self.asking is not None:
            told = self.tell(itertools.chain.from_iterable(self.asking.values()))
        load["two_ways"] = self.asking is not None
        self._channel.send({"op": "load", "seed": self.seed, "tell": told, "load": load})

    def tell(self, every: Iterable[_Probes]) -> list[dict[str, Any]]:
        """What the stage has not been told of yet: source, code and values of probes with their
        helpers."""
        told = []
        for probes in every:
            if probes not in self.told:
                self.told[probes] = len(self.told)
                source, code, values = _probe(*probes)
                code = code if self.asking is None else _two_ways(probes)
                told.append({"source": source, "code": code, "values": values})
        return told

    def channel(self) -> Channel:
        """The stage with the source loaded. Raises StageDied."""
        if self._channel is None:
            self.start(limited=not self.on_gpu)
            self.load()
        channel = self._channel
        assert channel is not None
        if not self._loaded:
            reply = channel.answer(Allowance(CPU_S, _WALL_S))
            self.tampered.update(reply.tampered)
            trouble = reply.trouble
            if trouble is None and reply.raised is not None:
                trouble = Trouble(Kind.CRASH, reply.raised.story)
            if trouble is not None:
                self.drop()
                if trouble.kind is Kind.BREAKPOINT:
                    raise StageDied(trouble.kind, _AT_A_BREAKPOINT)
                raise StageDied(trouble.kind, trouble.message)
            self._loaded = True
            printed = self._printed(channel)
            self.output = self.output or printed
        return channel

    def look(self) -> None:
        """Where all has passed, see at last what the submission has replaced. Raises StageDied."""
        good = all(check.outcome in (Outcome.PASSED, Outcome.SKIPPED) for check in self.checks)
        if self.asking is not None and self._channel is not None and self._loaded and good:
            allowance = Allowance(CPU_S, _WALL_S)
            reply = self._channel.ask({"op": "look", "seed": self.seed}, allowance)
            self.tampered.update(reply.tampered)

    def drop(self) -> None:
        """End the stage; what it printed belongs to the check that is made."""
        if self._channel is not None:
            self.printed += self._printed(self._channel)
            self.close()

    def close(self) -> None:
        """End the stage, whatever became of the run."""
        self._channel, channel = None, self._channel
        if channel is not None:
            try:
                channel.close()
            except StageDied as died:  # it had killed or stopped its own parent
                self.err(died)

    def break_off(self) -> None:
        """From another thread: make no more checks."""
        self._broken_off = True
        channel = self._channel
        if channel is not None:
            with contextlib.suppress(OSError):
                os.kill(channel.pid, signal.SIGKILL)

    def err(self, died: StageDied) -> None:
        """The first trouble is the run's."""
        if died.tampered is not None:
            self.tampered.add(died.tampered)
        if self.error is None:
            self.error, self.error_at = died.trouble, len(self.checks)

    def _printed(self, channel: Channel) -> str:
        text = channel.kept.decode(errors="replace")
        if channel.printed > len(channel.kept):
            text += f"\n[{channel.printed - len(channel.kept)} more bytes were printed]\n"
        channel.forget_output()
        return text

    def known(self, bug: str) -> catalog.Bug | None:
        """The bug of this id, if the catalogue has it."""
        return catalog.entry(self.slug).known(bug)

    def loads(self) -> bool:
        """Whether the source could be loaded; if not, `error` says why."""
        if self.error is None:
            try:
                self.channel()
            except StageDied as died:
                self._note(died)
                self.output = self.printed
        return self.error is None

    # The checks

    def run(self, chosen: Iterable[Callable[..., Any]], until_named: bool = False) -> None:
        """Make these checks, one after another, or until one names a mistake."""
        not_run = "" if self.loads() else "Not run: the file could not be loaded."
        for check in chosen:
            if self._broken_off:
                break
            if not_run:
                self._record(check, Outcome.ERROR, not_run)
            else:
                self._run(check)
            if until_named and self.checks[-1].bug is not None:
                break
            if self.out_of_time:
                paused = self.error is not None and self.error.kind is Kind.BREAKPOINT
                why = "stopped at a breakpoint" if paused else "ran out of time"
                not_run = not_run or f"Not run: an earlier check {why}."
            elif self.deaths >= _MAX_DEATHS:
                not_run = not_run or f"Not run: {_MAX_DEATHS} checks had ended the process."

    def _run(self, check: Any) -> None:
        gpu = _on_gpu(check)
        if gpu and not self.examiner.accelerator():
            self._record(check, Outcome.SKIPPED, "No accelerator on this machine.")
            return
        if gpu and not self.on_gpu:
            self.drop()
            self.on_gpu = True
        self.printed = ""
        digest = hashlib.sha256(f"{self.seed}/{check.__name__}".encode()).digest()
        seed = int.from_bytes(digest[:6], "big")
        slower = _GPU_FACTOR if gpu else 1
        allowance = Allowance(CPU_S * slower, _WALL_S * slower)
        device = self.examiner.accelerator() if gpu else "cpu"
        stage = StageHandle(self, check.__name__, allowance, seed, device)
        words = {"stage": stage, "draw": checks.Draw(seed)}
        try:
            check(**{name: words[name] for name in inspect.signature(check).parameters})
        except checks.CheckFailed as failed:
            self.failed = failed
            if failed.compared is not None:
                self.compared[_name(check)] = failed.compared
            if failed.bug is not None and self.known(failed.bug) is None:
                self.faults[check.__name__] = f"the catalogue has no bug '{failed.bug}'"
            self._record(check, Outcome.FAILED, str(failed), failed.bug, started=failed.started)
        except StageDied as died:
            self._note(died)
            self._record(check, Outcome.ERROR, str(died))
        except Exception:
            self.faults[check.__name__] = traceback.format_exc()
            came = checks.described(stage.last)
            self._record(check, Outcome.FAILED, f"This check cannot use what came: {came}.")
        else:
            self._record(check, Outcome.PASSED)

    def _note(self, died: StageDied) -> None:
        self.err(died)
        self.deaths += 1
        self.out_of_time = self.out_of_time or died.late
        if self._channel is not None:
            channel, self._channel = self._channel, None
            self.printed += self._printed(channel)

    def _record(
        self,
        check: Any,
        outcome: Outcome,
        message: str = "",
        bug: str | None = None,
        *,
        started: bool = True,
    ) -> None:
        if self._channel is not None:
            self.printed += self._printed(self._channel)
        if bug is not None:
            known = self.known(bug)
            if known is not None:
                message = f"{known.title}: {message}"
        self.checks.append(
            Check(
                name=_name(check),
                part=check.kata_part,
                outcome=outcome,
                message=harmless(message)[:4000],
                bug=bug,
                started=started,
                printed=harmless(self.printed)[:_PRINTED_CHARS],
            )
        )


def _name(check: Callable[..., Any]) -> str:
    return check.__name__.removeprefix("test_")


def _side_by_side(runs: list[Run], chosen: Sequence[Callable[..., Any]], until_named: bool) -> None:
    """Make the checks in turn on one run and the next, those of the gpu part on the first.

    Whether the source can be loaded is for the first to say. The others load it after that, so
    that no two do at once; where one cannot (what the file does may work but once), the first
    makes its checks.
    """
    first, *others = runs
    apart = [check for check in chosen if not _on_gpu(check)]
    shares = [apart[run.lane :: len(runs)] for run in runs]
    ends: list[BaseException] = []

    def make(run: Run, share: list[Callable[..., Any]]) -> None:
        torch.set_num_threads(1)  # each thread has its own number
        try:
            run.load()
            if run.loads():
                run.run(share)
                share.clear()
            run.error = run.error if run.checks else None
        except BaseException as error:
            ends.append(error)

    def rest() -> Iterator[Callable[..., Any]]:
        for thread in threads:
            thread.join()
        for share in shares[1:]:
            yield from share
        yield from filter(_on_gpu, chosen)

    threads = []
    if first.loads():
        threads = [threading.Thread(target=make, args=pair) for pair in zip(others, shares[1:])]
    for thread in threads:
        thread.start()
    try:
        first.run(itertools.chain(shares[0], rest()), until_named)
    except BaseException:  # Ctrl-C, for one
        for run in others:
            run.break_off()
        for thread in threads:
            thread.join()
        raise
    if ends:
        raise ends[0]


def _on_gpu(check: Any) -> bool:
    return check.kata_part is Part.GPU


@dataclass(frozen=True)
class _Made:
    """What the checks of one grading came to, in the order of the suite."""

    checks: tuple[Check, ...]
    error: Trouble | None
    output: str
    faults: dict[str, str]
    asked: Asked
    tampered: frozenset[str]
    compared: dict[str, Compared]

    @property
    def good(self) -> bool:
        outcomes = {check.outcome for check in self.checks}
        return self.error is None and outcomes <= {Outcome.PASSED, Outcome.SKIPPED}

    @property
    def words(self) -> str:
        """What kept it from passing, if something did."""
        trouble = [] if self.error is None else [self.error.message]
        return next(
            iter([*trouble, *(check.message for check in self.checks if check.message)]), ""
        )


class Examiner:
    """Grades submissions, one after another, in one process.

        with Examiner() as examiner:
            verdict = examiner.grade("lora_linear", source)

    Enter it early: the nurseries are forked here, before any suite is imported.
    accelerator: the torch device type for gpu checks; None asks the machine.
    lanes: how many stages the checks of one submission are made on side by side. Which check goes
    to which is fixed, so that a verdict does not hang on who is faster.
    differences: verdicts show where arrays differ, expected values with it: for a learner's own
    file alone.
    boxed: for files that nobody has read: stages run in the box (exam/box.py), and flags are asked
    in two ways (exam/asking.py). Raises Unavailable where this machine lacks what the box needs.
    """

    def __init__(
        self,
        accelerator: str | None = None,
        lanes: int = 1,
        boxed: bool = False,
        differences: bool = False,
    ) -> None:
        torch.set_num_threads(1)
        self.boxed, self.differences = boxed, differences
        self._nurseries: list[Nursery] = []
        for _ in range(lanes):
            self._nurseries.append(self._new() if boxed else Nursery.fork(self._nurseries))
        undumpable()
        self._accelerator = accelerator
        self._asked: dict[str, tuple[int, Asked]] = {}
        self._suites: dict[str, tuple[int, list[Callable[..., Any]]]] = {}

    def __enter__(self) -> "Examiner":
        return self

    def __exit__(self, *_: object) -> None:
        while self._nurseries:
            self._nurseries.pop().close()

    def _new(self) -> Nursery:
        """A nursery from a new interpreter."""
        if not self.boxed:
            return Nursery.spawn()
        from grader.exam.box import Box  # for files of others alone

        return Box.spawn()

    def nursery(self, lane: int = 0) -> Nursery:
        if not self._nurseries:
            raise GraderError("This examiner is closed.")
        if self._nurseries[lane].gone:  # a submission killed or stopped it
            self._nurseries[lane] = self._new()
        return self._nurseries[lane]

    def accelerator(self) -> str:
        """The device type gpu checks run on, or '' where there is none."""
        if self._accelerator is None:
            self._accelerator = self.nursery().accelerator()
        return self._accelerator

    def grade(
        self,
        slug: str,
        source: bytes | Trouble,
        filename: str | None = None,
        seed: int | None = None,
        part: Part | None = None,
        until_named: bool = False,
        check: str | None = None,
    ) -> Verdict:
        """Judge one file. `filename` is how messages call it; `part`, and `check` by its name
        without test_, leave out all others; with `until_named` the first check that names a
        mistake is the last. Raises GraderError if the suite itself is broken or the
        grader cannot run."""
        started = time.monotonic()
        seed = random.SystemRandom().randrange(10**6) if seed is None else seed

        def wanted(made: Any) -> bool:
            named = check is None or made.__name__ == f"test_{check}"
            return named and (part is None or made.kata_part is part)

        name = filename or f"{slug}.py"
        asking = self._asked_of(slug, seed) if self.boxed else None
        made = self._pass(slug, source, name, seed, wanted, until_named, asking)
        if made.faults and isinstance(source, bytes):
            self._blame_suite(slug, seed, made.faults)
        verdict = Verdict(
            slug=slug,
            seed=seed,
            seconds=time.monotonic() - started,
            checks=made.checks,
            error=None
            if made.error is None
            else Trouble(made.error.kind, harmless(made.error.message)[:4000]),
            only=part,
            output=harmless(made.output)[:KEPT_OUTPUT_BYTES],
            check=check,
            tampered=tuple(sorted(map(harmless, made.tampered))),
            marks=self._marks(source),
        )
        return self._with_differences(verdict, made.compared) if self.differences else verdict

    def _with_differences(self, verdict: Verdict, compared: dict[str, Compared]) -> Verdict:
        """The verdict, and of its first failures how arrays differ."""
        found = list(verdict.checks)
        for at in verdict.distinct[:_DIFFERENCES]:
            if (values := compared.get(found[at].name)) is not None:
                with contextlib.suppress(
                    Exception
                ):  # a picture that cannot be made must not cost the verdict
                    found[at] = replace(found[at], difference=difference.of(values))
        return replace(verdict, checks=tuple(found))

    def _asked_of(self, slug: str, seed: int) -> Asked:
        """The probes of each check, which are to be made before a submission is loaded: those that
        the solution is asked. Raises GraderError if that does not pass."""
        self._suite(slug)
        version, _ = self._suites[slug]
        if self._asked.get(slug, (0, {}))[0] != version:
            source = content.solution(slug).read_bytes()
            made = self._pass(slug, source, "solution.py", seed, lambda _: True)
            if not made.good:
                raise GraderError(f"The solution of {slug} does not pass in the box: {made.words}")
            self._asked[slug] = version, made.asked
        return self._asked[slug][1]

    def _marks(self, source: bytes | Trouble) -> tuple[str, ...]:
        if not self.boxed or isinstance(source, Trouble):
            return ()
        from grader.exam import marks

        return marks.of(source)

    def _blame_suite(self, slug: str, seed: int, faults: dict[str, str]) -> None:
        """A check met something it did not foresee. If the solution makes it stumble too, the
        suite is broken; otherwise the submission's evidence was unusable, which is no pass."""
        source = content.solution(slug).read_bytes()
        again = self._pass(slug, source, "solution.py", seed, lambda c: c.__name__ in faults)
        broken = {**again.faults, **{n: t for n, t in faults.items() if "catalogue" in t}}
        if broken:
            name, text = next(iter(broken.items()))
            raise GraderError(f"The suite of {slug} failed in {name}:\n{text.rstrip()}")

    def _pass(
        self,
        slug: str,
        source: bytes | Trouble,
        filename: str,
        seed: int,
        wanted: Callable[[Any], bool],
        until_named: bool = False,
        asking: Asked | None = None,
    ) -> _Made:
        """Make the checks that are wanted, those of the gpu part last: its stage is its own."""
        lanes = 1 if until_named else len(self._nurseries)
        runs = [Run(self, slug, source, filename, seed, lane, asking) for lane in range(lanes)]
        chosen: list[Callable[..., Any]] = []
        try:
            if isinstance(source, bytes):
                for run in runs:
                    run.start()  # it makes ready while the suite is collected
            found = self._suite(slug)
            catalog.entry(slug)  # read before the submission runs, too
            if isinstance(source, bytes):
                runs[0].load()
            chosen = [check for check in found if wanted(check)]
            chosen.sort(key=_on_gpu)
            _side_by_side(runs, chosen, until_named)
            for run in runs:
                run.look()
        except NurseryGone as gone:
            raise GraderError("The process that runs submissions was killed.") from gone
        except StageDied as died:
            runs[0].err(died)
        finally:
            for run in runs:
                run.close()
        made = {check.name: check for run in runs for check in run.checks}
        failing = [run for run in runs if run.error is not None]
        first = min(failing, key=lambda run: run.error_at, default=runs[0])
        if len(made) != len(chosen) and first.error is None and not until_named:
            raise GraderError(f"{len(made)} of {len(chosen)} checks of {slug} were made.")
        return _Made(
            tuple(made[name] for c in chosen if (name := _name(c)) in made),
            first.error,
            runs[0].output,
            {name: text for run in runs for name, text in run.faults.items()},
            {name: probes for run in runs for name, probes in run.asked.items()},
            frozenset().union(*(run.tampered for run in runs)),
            {name: values for run in runs for name, values in run.compared.items()},
        )

    def _suite(self, slug: str) -> list[Callable[..., Any]]:
        """The checks of a suite; collected anew if it has changed."""
        path = content.suite(slug)
        version = path.stat().st_mtime_ns
        if self._suites.get(slug, (0, []))[0] != version:
            self._suites[slug] = version, suite.collect(path)
        return self._suites[slug][1]
