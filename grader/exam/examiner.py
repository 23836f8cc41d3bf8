"""Runs a hidden suite against a submission and writes the verdict.

The suite, which pytest collects, runs here; the submission runs on a stage. Nothing of the
submission is ever imported, unpickled or evaluated in this process.
"""
# ruff: noqa: E402 – torch is imported first, see below

import gc
import hashlib
import inspect
import marshal
import os
import random
import re
import textwrap
import time
import traceback
import types
from collections.abc import Callable, Iterable
from typing import Any

# Before anything else of ours: the nursery is forked with torch and no more. Collecting garbage
# while it is imported would cost 0.1 s and find none.
gc.disable()
import torch

gc.freeze()
gc.enable()

from grader import catalog, content
from grader.errors import GraderError
from grader.exam import checks, kit
from grader.exam.nursery import Nursery, NurseryGone
from grader.exam.session import KEPT_OUTPUT_BYTES, Session, StageDied
from grader.exam.stage import PROBE_FILE
from grader.exam.verdict import Check, Kind, Outcome, Part, Trouble, Verdict
from grader.harmless import harmless

_LOAD_S = 10.0
_GPU_FACTOR = 6
_MAX_TIMEOUTS, _MAX_DEATHS = 2, 3
_PLUGINS_OFF = [
    "terminal",
    "cacheprovider",
    "faulthandler",
    "logging",
    "doctest",
    "unittest",
    "warnings",
    "pastebin",
    "junitxml",
    "tmpdir",
    "monkeypatch",
    "recwarn",
    "stepwise",
    "setuponly",
    "setupplan",
    "debugging",
    "threadexception",
    "unraisableexception",
    "legacypath",
    "capture",
]


class StageHandle:
    """What a check calls: `stage(probe, ...)` gives the probe's evidence."""

    def __init__(self, run: "_Run", seconds: float, seed: int, device: str) -> None:
        self._run, self.seconds, self._seed = run, seconds, seed
        self.device = device

    def __call__(self, probe: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Evidence of a probe. Raises LearnerRaised if it raised, StageDied if it ended so."""
        reply = self._ask(probe, args, kwargs)
        if "raised" in reply:
            raise _raised(reply["raised"])
        return reply["evidence"]

    def attempt(self, probe: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Evidence of a probe, or `Raised` with the exception it ended in."""
        reply = self._ask(probe, args, kwargs)
        if "raised" not in reply:
            return reply["evidence"]
        raised = reply["raised"]
        if raised["missing"]:
            raise _raised(raised)
        return checks.Raised(raised["types"], raised["text"], raised["unwritten"])

    def _ask(self, probe: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
        session = self._run.session()
        source, code, values = _probe(probe)
        call = {
            "name": probe.__name__,
            "source": source,
            "code": code,
            "values": values,
            "args": args,
            "kwargs": kwargs,
        }
        started = time.monotonic()
        session.send({"op": "probe", "seed": self._seed, "probe": call}, self.seconds)
        reply = session.answer(self.seconds)
        self.seconds = max(0.05, self.seconds - (time.monotonic() - started))
        if "unsendable" in reply:
            raise checks.CheckFailed(f"The submission's answer: {reply['unsendable']}.")
        raised = reply.get("raised")
        if raised is not None:
            if raised["memory"]:
                self._run.drop()
                raise StageDied(Kind.MEMORY, "It asked for more than 4 GiB of memory.")
            if "builtins.SystemExit" in raised["types"]:
                self._run.drop()
                raise StageDied(Kind.CRASH, f"It called exit. {raised['story']}")
        elif "evidence" not in reply:
            raise checks.CheckFailed("The submission's process sent malformed evidence.")
        return reply


def _raised(raised: dict[str, Any]) -> checks.LearnerRaised:
    names = ("types", "text", "story", "unwritten")
    return checks.LearnerRaised(*(raised[name] for name in names))


def _probe(probe: Callable[..., Any]) -> tuple[str, bytes, dict[str, Any]]:
    """The probe's source with that of the helpers it calls, that compiled (here, once, and not
    on each stage anew), and the plain values it names."""
    if probe not in _sources:
        pieces: dict[str, str] = {}
        values: dict[str, Any] = {}
        queue = [probe]
        while queue:
            function = queue.pop()
            pieces[function.__name__] = textwrap.dedent(inspect.getsource(function))
            for name in set(re.findall(r"\w+", pieces[function.__name__])):
                value = function.__globals__.get(name)
                if name in pieces or name in kit.__all__:
                    continue
                if isinstance(value, types.FunctionType) and value.__module__ == probe.__module__:
                    queue.append(value)
                elif isinstance(value, (int, float, str, tuple)):
                    values[name] = value
        source = "\n\n".join(pieces.values())
        code = marshal.dumps(compile(source, PROBE_FILE, "exec", dont_inherit=True))
        _sources[probe] = (source, code, values)
    return _sources[probe]


_sources: dict[Callable[..., Any], tuple[str, bytes, dict[str, Any]]] = {}


class _Run:
    """One suite against one source: records an outcome per check."""

    def __init__(
        self,
        examiner: "Examiner",
        slug: str,
        source: bytes | Trouble,
        filename: str,
        seed: int,
        part: Part | None,
        only: frozenset[str] | None = None,
        until_named: bool = False,
    ) -> None:
        self.examiner, self.slug, self.source, self.filename = examiner, slug, source, filename
        self.seed, self.part, self.only, self.until_named = seed, part, only, until_named
        self.checks: list[Check] = []
        self.error: Trouble | None = source if isinstance(source, Trouble) else None
        self.output = ""
        self.faults: dict[str, str] = {}
        self.timeouts = self.deaths = 0
        self.on_gpu = False
        self._session: Session | None = None
        self._loaded = False

    # The stage

    def open(self, limited: bool = True) -> None:
        """Start a stage and have it load the source; `session` awaits that."""
        assert isinstance(self.source, bytes)
        self._loaded = False
        try:
            self._session = Session(self.examiner.nursery(), limited)
        except NurseryGone:  # the submission had stopped it; another is made
            self._session = Session(self.examiner.nursery(), limited)
        load = {
            "slug": self.slug,
            "filename": self.filename,
            "source": self.source,
            "defines": catalog.card(self.slug).defines,
        }
        self._session.send({"op": "load", "seed": self.seed, "load": load}, _LOAD_S)

    def session(self) -> Session:
        """The stage with the source loaded. Raises StageDied."""
        if self._session is None:
            self.open(limited=not self.on_gpu)
        session = self._session
        assert session is not None
        if not self._loaded:
            reply = session.answer(_LOAD_S)
            trouble = reply.get("trouble")
            if trouble is None and "raised" in reply:
                trouble = {"kind": "crash", "message": reply["raised"]["story"]}
            if trouble is not None:
                self.drop()
                raise StageDied(Kind(trouble["kind"]), trouble["message"])
            self._loaded = True
        return session

    def drop(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            self._keep_output(session)
            try:
                session.close()
            except StageDied as died:  # it had killed or stopped its own parent
                self.error = self.error or died.trouble

    def _keep_output(self, session: Session) -> None:
        text = session.kept.decode(errors="replace")
        if session.printed > len(session.kept):
            text += f"\n[{session.printed - len(session.kept)} more bytes were printed]\n"
        session.forget_output()
        self.output = (self.output + text)[:KEPT_OUTPUT_BYTES]

    # The checks

    def run(self, checks: Iterable[Callable[..., Any]]) -> None:
        """Make the checks that are asked for, those of the gpu part last: its stage is its own."""
        chosen = [
            check
            for check in checks
            if (self.part is None or check.kata_part is self.part)  # type: ignore[attr-defined]
            and (self.only is None or check.__name__ in self.only)
        ]
        chosen.sort(key=lambda check: check.kata_part is Part.GPU)  # type: ignore[attr-defined]
        if self.error is None:
            try:
                self.session()
            except StageDied as died:
                self._note(died)
                self.error = died.trouble
        loaded = self.error is None
        for check in chosen:
            if not loaded or self.timeouts >= _MAX_TIMEOUTS or self.deaths >= _MAX_DEATHS:
                self._record(check, Outcome.ERROR, "Did not run.")
            else:
                self._run(check)
            if self.until_named and self.checks[-1].bug is not None:
                break
        self.drop()

    def _run(self, check: Any) -> None:
        gpu = check.kata_part is Part.GPU
        if gpu and not self.examiner.accelerator():
            self._record(check, Outcome.SKIPPED, "No accelerator on this machine.")
            return
        if gpu and not self.on_gpu:
            self.drop()
            self.on_gpu = True
        digest = hashlib.sha256(f"{self.seed}/{check.__name__}".encode()).digest()
        seed = int.from_bytes(digest[:6], "big")
        seconds = check.kata_seconds * (_GPU_FACTOR if gpu else 1)
        device = self.examiner.accelerator() if gpu else "cpu"
        words = {
            "stage": StageHandle(self, seconds, seed, device),
            "draw": checks.Draw(seed),
        }
        try:
            check(**{name: words[name] for name in inspect.signature(check).parameters})
        except checks.CheckFailed as failed:
            known = failed.bug is None or any(
                bug.id == failed.bug for bug in catalog.entry(self.slug).bugs
            )
            if not known:
                self.faults[check.__name__] = f"the catalogue has no bug '{failed.bug}'"
            self._record(check, Outcome.FAILED, str(failed), failed.bug, started=failed.started)
        except StageDied as died:
            self._note(died)
            self._session = None
            self.error = self.error or died.trouble
            self._record(check, Outcome.ERROR, str(died))
        except Exception:
            self.faults[check.__name__] = traceback.format_exc()
            self._record(check, Outcome.ERROR, "The evidence for this check could not be used.")
        else:
            self._record(check, Outcome.PASSED)
        if self._session is not None:
            self._keep_output(self._session)

    def _note(self, died: StageDied) -> None:
        self.deaths += 1
        self.timeouts += died.trouble.kind is Kind.TIMEOUT
        if self._session is not None:
            session, self._session = self._session, None
            self._keep_output(session)

    def _record(
        self,
        check: Any,
        outcome: Outcome,
        message: str = "",
        bug: str | None = None,
        *,
        started: bool = True,
    ) -> None:
        name = check.__name__.removeprefix("test_")
        if bug is not None:
            known = next((b for b in catalog.entry(self.slug).bugs if b.id == bug), None)
            if known is not None:
                message = f"{known.title}: {message}"
        self.checks.append(
            Check(
                name=name,
                part=check.kata_part,
                outcome=outcome,
                message=harmless(message)[:4000],
                bug=bug,
                started=started,
            )
        )


class Examiner:
    """Grades submissions, one after another, in one process.

        with Examiner() as examiner:
            verdict = examiner.grade("lora_linear", source)

    Enter it early: the nursery is forked here, before any suite is imported.
    accelerator: the torch device type for gpu checks; None asks the machine.
    """

    def __init__(self, accelerator: str | None = None) -> None:
        torch.set_num_threads(1)
        self._nursery: Nursery | None = Nursery.fork()
        self._accelerator = accelerator
        self._suites: dict[str, tuple[int, list[Callable[..., Any]]]] = {}

    def __enter__(self) -> "Examiner":
        return self

    def __exit__(self, *_: object) -> None:
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None

    def nursery(self) -> Nursery:
        if self._nursery is None:
            raise GraderError("This examiner is closed.")
        if self._nursery.gone:  # a submission killed or stopped it
            self._nursery = Nursery.spawn()
        return self._nursery

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
    ) -> Verdict:
        """Judge one file. `filename` is how messages call it; with `until_named` the first check
        that names a mistake is the last. Raises GraderError if the suite itself is broken or the
        grader cannot run."""
        started = time.monotonic()
        seed = random.SystemRandom().randrange(10**6) if seed is None else seed
        name = filename or f"{slug}.py"
        run = self._pass(_Run(self, slug, source, name, seed, part, until_named=until_named))
        if run.faults and isinstance(source, bytes):
            self._blame_suite(run)
        return Verdict(
            slug=slug,
            seed=seed,
            seconds=time.monotonic() - started,
            checks=tuple(run.checks),
            error=None
            if run.error is None
            else Trouble(run.error.kind, harmless(run.error.message)[:4000]),
            only=part,
            output=harmless(run.output),
        )

    def _blame_suite(self, run: _Run) -> None:
        """A check met something it did not foresee. If the solution makes it stumble too, the
        suite is broken; otherwise the submission's evidence was unusable, which is no pass."""
        source = content.solution(run.slug).read_bytes()
        names = frozenset(run.faults)
        again = self._pass(_Run(self, run.slug, source, "solution.py", run.seed, None, names))
        broken = {**again.faults, **{n: t for n, t in run.faults.items() if "catalogue" in t}}
        if broken:
            name, text = next(iter(broken.items()))
            raise GraderError(f"The suite of {run.slug} failed in {name}:\n{text.rstrip()}")

    def _pass(self, run: _Run) -> _Run:
        try:
            if isinstance(run.source, bytes):
                run.open()  # loads the file while pytest is imported here
            run.run(self._suite(run.slug))
        except NurseryGone as gone:
            raise GraderError("The process that runs submissions was killed.") from gone
        except StageDied as died:
            run.error = died.trouble
        finally:
            run._session, session = None, run._session
            if session is not None:
                session.close()
        if not run.checks and run.error is None:
            raise GraderError(f"The suite of {run.slug} ran no check.")
        return run

    def _suite(self, slug: str) -> list[Callable[..., Any]]:
        """The checks that pytest finds in a suite, in its order; found anew if it has changed."""
        import pytest

        path = content.suite(slug)
        version = path.stat().st_mtime_ns
        if self._suites.get(slug, (0, []))[0] != version:
            collector = _Collector()
            kept = {k: os.environ.pop(k, None) for k in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")}
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            off = [word for name in _PLUGINS_OFF for word in ("-p", f"no:{name}")]
            words = ["-c", os.devnull, f"--rootdir={path.parent}", "--noconftest"]
            words += ["--assert=plain", "--import-mode=importlib"]
            try:
                status = pytest.main([str(path), *off, *words], plugins=[collector])
            finally:
                os.environ.update({k: v for k, v in kept.items() if v is not None})
            if status == pytest.ExitCode.INTERRUPTED:  # it swallows Ctrl-C
                raise KeyboardInterrupt
            if not collector.checks:
                raise GraderError(f"The suite of {slug} has no check (pytest status {status:d}).")
            self._suites[slug] = version, collector.checks
        return self._suites[slug][1]


class _Collector:
    """A pytest plugin that takes the checks it has collected, and runs none."""

    def __init__(self) -> None:
        self.checks: list[Callable[..., Any]] = []

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        self.checks = [item.obj for item in items]

    def pytest_runtestloop(self) -> bool:
        return True
