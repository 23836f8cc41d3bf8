"""What `kata grade` writes for others: each format as its readers describe it, nothing that leaks,
nothing that gets out of its place."""

import csv
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import msgspec
import numpy as np
import pytest
from classes import RIGHT, SLUG, WRONG, found, lay
from html_page import HOSTILE, Page

from grader import catalog, content
from grader.batch import copies, formats, records
from grader.batch.feedback import Told, document
from grader.batch.intake import Taken
from grader.batch.items import Statistics
from grader.batch.judged import Judged
from grader.batch.names import file_names
from grader.batch.records import Grading, Options, Results, Row, Submission
from grader.cli import grade as command
from grader.errors import UsageFault
from grader.exam.examiner import Examiner
from grader.exam.verdict import Check, Kind, Outcome, Part, Trouble, Verdict
from grader.views import grades, grades_html

Kata = Callable[..., "subprocess.CompletedProcess[str]"]
LEVELS = list(Told)

# A name, a file, a message: whatever could get out of its place in one of the formats.
NASTY = "=1+1\n::error::x\x1b[31m\x00\x08\ufffe]]>%0A::set-output name=a::b,c:d"
MESSAGE = f"the output is not what it should be: expected 23.3671, got 41.4074\n{NASTY}{HOSTILE}"


def verdict(
    checks: dict[str, Outcome], *, bug: str | None = None, message: str = MESSAGE, **more: Any
) -> Verdict:
    made = tuple(
        Check(
            name=name,
            part=Part.FORWARD if at % 2 else Part.SHAPE,
            outcome=outcome,
            message="" if outcome is Outcome.PASSED else message,
            bug=bug if outcome is Outcome.FAILED else None,
            printed=NASTY,
        )
        for at, (name, outcome) in enumerate(checks.items())
    )
    return Verdict(slug=SLUG, seed=7, seconds=0.25, checks=made, **more)


def store(
    folder: Path,
    rows: list[tuple[Submission, list[Verdict]]],
    *,
    boxed: bool = True,
    notes: tuple[str, ...] = (),
) -> Results:
    """Results of a run in which these submissions came to these verdicts, one a draw."""
    results = Results.writing(folder)
    seeds = max((len(verdicts) for _, verdicts in rows), default=1) or 1
    options = Options(seeds=seeds, boxed=boxed)
    records.begin(results, Taken([one for one, _ in rows], list(notes)), options, force=True)
    by_key = {(one.who, one.slug): verdicts for one, verdicts in rows}
    left = {key: iter(verdicts) for key, verdicts in by_key.items()}
    for missing in results.missing():
        text = next(left[missing.who, missing.slug]).as_json().decode()
        at = datetime.now(UTC)
        results.record(missing.id, Grading(seed=missing.seed, at=at, boxed=boxed, verdict=text))
    return results


def submission(who: str, source: bytes = RIGHT, **more: Any) -> Submission:
    given = {"slug": SLUG, "file": f"class/{who}/{SLUG}.py", **more}
    digest = sha256(who.encode(errors="replace") + source).hexdigest()
    return Submission(who=who, sha256=digest, source=source, **given)


P, F, E, S = Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.SKIPPED
ALL = {"one": P, "two_words": P, "three": P, "four": S}
SOME = {"one": P, "two_words": F, "three": P, "four": S}


@pytest.fixture
def nasty(tmp_path: Path) -> Iterator[tuple[Path, Results]]:
    """A run with every outcome there is, and with names that try to get out."""
    right, wrong = verdict(ALL), verdict(SOME, bug="scale-missing")
    not_run = verdict(dict.fromkeys(ALL, E), message="Not run: the file could not be loaded.",
                      error=Trouble(Kind.SYNTAX, f"SyntaxError: {NASTY} (line 3)"))  # fmt: skip
    rows = [
        (submission("ann"), [right, right]),
        (submission(NASTY, file=NASTY), [wrong, wrong]),
        (submission("../../up"), [right, wrong]),
        (submission("CON"), [not_run, not_run]),
        (submission("Ann", WRONG), [verdict(ALL, tampered=("torch.equal",)), right]),
        (submission("died"), [verdict(ALL, error=Trouble(Kind.CRASH, "Gone."))] * 2),
        (submission("marked"), [verdict(ALL, marks=("gc (line 4)",))] * 2),
        (Submission(who=HOSTILE, slug=SLUG, file="", trouble="Not handed in."), []),
        (Submission(who="odd", slug="", file="odd.zip", trouble=f"odd.zip {NASTY}"), []),
    ]
    with store(tmp_path / "out", rows, notes=(f"{HOSTILE} is not on the roster",)) as results:
        yield tmp_path / "out", results


def each_file(folder: Path, name: str) -> dict[str, str]:
    here = folder / name
    return {str(f.relative_to(here)): f.read_text() for f in sorted(here.rglob("*.*")) if f.suffix}


@pytest.mark.parametrize("told", LEVELS)
def test_json_holds_to_its_schema(nasty: tuple[Path, Results], told: Told) -> None:
    """results.json is what the schema beside it says, whole at every level."""
    folder, results = nasty
    formats.write(results, folder, told)
    schema = json.loads((folder / "results.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    whole = json.loads((folder / "results.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(whole)
    rows = found(folder)
    assert [one["outcome"] for one in rows.values()] == [
        "passed", "failed", "unstable", "failed", "unstable", "failed", "passed", "failed",
        "refused",
    ]  # fmt: skip
    unstable = rows["../../up", SLUG]
    assert (unstable["checks_passed"], unstable["checks"]) == (2, 3)
    assert rows["Ann", SLUG]["tampered"] == ["torch.equal"]
    assert rows["marked", SLUG]["marks"] == ["gc (line 4)"]
    assert "41.4074" in rows["../../up", SLUG]["gradings"][1]["verdict"]["checks"][1]["message"]
    del whole["submissions"][0]["who"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(whole)


def test_csv_is_text_to_a_spreadsheet(nasty: tuple[Path, Results]) -> None:
    """A line a submission, no cell that a spreadsheet would compute (OWASP, CSV injection)."""
    folder, results = nasty
    formats.write(results, folder, Told.FULL)
    raw = (folder / "results.csv").read_text(encoding="utf-8")
    assert raw.count("\n") == 1 + 9
    rows = list(csv.DictReader(raw.splitlines()))
    assert len(rows) == 9
    for row in rows:
        for cell in row.values():
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
            assert "\n" not in cell
    assert rows[1]["who"].startswith("'=1+1 ::error")
    assert rows[1]["mistakes"] == "The factor alpha / r is missing"
    assert rows[4]["replaces"] == "torch.equal"
    assert rows[6]["uses"] == "gc (line 4)"


# Jenkins' schema of JUnit files, https://github.com/jenkinsci/xunit-plugin junit-10.xsd, in short:
# attributes of an element, those that it needs first; and what may be in it.
JUNIT: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": (
        {"name"},
        {"time", "classname", "group"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "skipped": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
}


def test_junit_holds_to_its_schema(nasty: tuple[Path, Results]) -> None:
    """Well-formed XML whatever was printed, and counts that are those of the cases."""
    folder, results = nasty
    formats.write(results, folder, Told.FULL, ["junit"])
    root = ElementTree.parse(folder / "junit.xml").getroot()
    assert root.tag == "testsuites"
    for element in root.iter():
        needed, allowed, inside = JUNIT[element.tag]
        assert needed <= set(element.keys()) <= needed | allowed
        assert {child.tag for child in element} <= inside
    suites = root.findall("testsuite")
    assert len(suites) == 9
    for suite in suites:
        counts = {
            "tests": len(suite.findall("testcase")),
            "failures": len(suite.findall("testcase/failure")),
            "errors": len(suite.findall("testcase/error")),
            "skipped": len(suite.findall("testcase/skipped")),
        }
        assert {key: int(suite.attrib[key]) for key in counts} == counts
        assert re.fullmatch(r"\d{1,3}\.\d{3}", suite.attrib["time"])
    passing = [not suite.findall("*/failure") + suite.findall("*/error") for suite in suites]
    assert passing == [True, *[False] * 5, True, False, False]


# https://gradescope-autograders.readthedocs.io/en/latest/specs/, "Output format".
VISIBILITY = {"enum": ["hidden", "after_due_date", "after_published", "visible"]}
TEXT = {"enum": ["text", "html", "simple_format", "md", "ansi"]}
GRADESCOPE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["tests"],  # or a score of the whole
    "properties": {
        "score": {"type": "number"},
        "execution_time": {"type": "number"},
        "output": {"type": "string"},
        "output_format": TEXT,
        "test_output_format": TEXT,
        "test_name_format": TEXT,
        "visibility": VISIBILITY,
        "stdout_visibility": VISIBILITY,
        "extra_data": {"type": "object"},
        "tests": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["score"],
                "properties": {
                    "score": {"type": "number"},
                    "max_score": {"type": "number"},
                    "status": {"enum": ["passed", "failed"]},
                    "name": {"type": "string"},
                    "name_format": TEXT,
                    "number": {"type": "string"},
                    "output": {"type": "string"},
                    "output_format": TEXT,
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "visibility": VISIBILITY,
                    "extra_data": {"type": "object"},
                },
            },
        },
    },
}
# https://github.com/exercism/docs building/tooling/test-runners/interface.md.
EXERCISM = {
    "type": "object",
    "additionalProperties": False,
    "required": ["version", "status"],
    "properties": {
        "version": {"const": 3},
        "status": {"enum": ["pass", "fail", "error"]},
        "message": {"type": ["string", "null"], "maxLength": 65535},
        "tests": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "status"],
                "properties": {
                    "name": {"type": "string"},
                    "status": {"enum": ["pass", "fail", "error"]},
                    "message": {"type": ["string", "null"], "maxLength": 65535},
                    "output": {"type": ["string", "null"], "maxLength": 500},
                    "test_code": {"type": "string"},
                    "task_id": {"type": "number"},
                },
            },
        },
    },
    "if": {"properties": {"status": {"const": "error"}}},
    "then": {"required": ["message"], "properties": {"message": {"type": "string"}}},
    "else": {"required": ["tests"], "properties": {"message": {"type": "null"}}},
}
# What https://github.com/classroom-resources/autograding-grading-reporter (src/main.js,
# src/notify-classroom.js, __tests__/main.test.js) reads of a runner's result.
CLASSROOM = {
    "type": "object",
    "required": ["version", "status", "max_score", "tests"],
    "properties": {
        "version": {"const": 1},
        "status": {"enum": ["pass", "fail", "error"]},
        "max_score": {"type": "number", "exclusiveMinimum": 0},
        "tests": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "status", "message", "score"],
                "properties": {
                    "name": {"type": "string"},
                    "status": {"enum": ["pass", "fail", "error"]},
                    "message": {"type": ["string", "null"]},
                    "score": {"type": "number", "minimum": 0},
                },
            },
        },
    },
}


@pytest.mark.parametrize("told", LEVELS)
@pytest.mark.parametrize(
    ("name", "schema"),
    [("gradescope", GRADESCOPE), ("exercism", EXERCISM), ("classroom", CLASSROOM)],
)
def test_files_for_platforms_hold_to_their_schemas(
    nasty: tuple[Path, Results], name: str, schema: dict[str, Any], told: Told
) -> None:
    """A file a person (a submission for Exercism) that its readers take, with the right outcome."""
    folder, results = nasty
    formats.write(results, folder, told, [name])
    files = each_file(folder, name)
    assert len(files) == 9
    for text in files.values():
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
        assert not re.search(r"(^|\\n|\")(::|##\[)\w", text) or name != "classroom"
        assert "41.4074" not in text
        assert "23.3671" not in text
    where = {who: path for path in files for who in ("ann", "marked") if path.startswith(who)}
    passing = [path for path, text in files.items() if _passes(name, json.loads(text))]
    assert passing == sorted(where.values())


def _passes(name: str, result: dict[str, Any]) -> bool:
    if name == "gradescope":
        return all(test["score"] == test["max_score"] for test in result["tests"])
    if name == "classroom":
        total = sum(test["score"] for test in result["tests"])
        assert (result["status"] == "pass") == (total == result["max_score"])
    return bool(result["status"] == "pass")


def test_annotations_are_commands_and_nothing_else(nasty: tuple[Path, Results]) -> None:
    """Each line is one command of Actions, escaped as its toolkit does, ten errors at most
    (github.com/actions/toolkit: packages/core command.ts, docs/problem-matchers.md)."""
    folder, results = nasty
    formats.write(results, folder, Told.NAMED, ["actions"])
    lines = (folder / "annotations.txt").read_text().splitlines()
    command = re.compile(r"::(error|notice) (\w+=[^:,\r\n]*(?:,\w+=[^:,\r\n]*)*)::([^\r\n]*)")
    matches = [command.fullmatch(line) for line in lines]
    assert all(matches)
    assert [match[1] for match in matches if match] == ["error"] * 7 + ["notice"]
    assert "The factor alpha / r is missing." in lines[0]
    assert "%0A%3A%3Aerror%3A%3Ax" in lines[0]
    assert lines[-1] == "::notice title=kata grade::2 of 9 submissions passed."
    assert "41.4074" not in "".join(lines)


def test_annotations_are_ten(tmp_path: Path) -> None:
    """GitHub drops what is more without a word, so the notice says how many there are."""
    rows = [(submission(f"p{n}"), [verdict(SOME)]) for n in range(14)]
    with store(tmp_path, rows) as results:
        formats.write(results, tmp_path, Told.SCORE, ["actions"])
    lines = (tmp_path / "annotations.txt").read_text().splitlines()
    assert len(lines) == 11
    assert "4 more that did not pass are not shown here." in lines[-1]


def test_names_stay_in_their_folder(nasty: tuple[Path, Results]) -> None:
    """Whatever people are called, each has files of their own, and none is outside."""
    folder, results = nasty
    before = {path for path in folder.parent.rglob("*") if folder not in path.parents}
    formats.write(results, folder, Told.FULL, formats.CHOICES)
    assert before == {path for path in folder.parent.rglob("*") if folder not in path.parents}
    assert len(each_file(folder, "feedback")) == 9
    people = ["ann", "Ann", "ANN", "nul", "com1.txt", "..", ".", "", " ", "a/b", "a\\b", "a:b",
              "x" * 300, "x" * 301, "José", "名前", "a\nb", "-rf", "O'Neil", "ann."]  # fmt: skip
    names = file_names(people)
    assert len({name.casefold() for name in names.values()}) == len(people)
    for name in names.values():
        assert re.fullmatch(r"[\w@+-][\w.@+ -]*", name)
        assert len(name) < 80
        assert not re.fullmatch(r"(?i)(con|nul|com\d)(\..*)?", name)
    assert (names["José"], names["名前"]) == ("José", "名前")


def test_feedback_of_before_is_gone(tmp_path: Path) -> None:
    """What was told of somebody who is no more part of the run does not stay."""
    rows = [(submission("ann"), [verdict(SOME)]), (submission("ben"), [verdict(ALL)])]
    with store(tmp_path, rows) as results:
        formats.write(results, tmp_path, Told.FULL)
    assert list(each_file(tmp_path, "feedback")) == [f"ann/{SLUG}.md", f"ben/{SLUG}.md"]
    with store(tmp_path, rows[1:]) as results:
        formats.write(results, tmp_path, Told.FULL)
    assert list(each_file(tmp_path, "feedback")) == [f"ben/{SLUG}.md"]
    assert not list(tmp_path.glob(".*"))
    (mine := tmp_path / "gradescope").mkdir()
    (mine / "mine.json").touch()
    with store(tmp_path, rows) as results, pytest.raises(UsageFault, match="Move it away"):
        formats.write(results, tmp_path, Told.FULL, ["gradescope"])
    assert [*mine.iterdir()] == [mine / "mine.json"]


def test_levels_of_feedback(nasty: tuple[Path, Results]) -> None:
    """Parts only; then which mistake; then how to mend it and the rule."""
    folder, results = nasty
    texts = {}
    for told in LEVELS:
        formats.write(results, folder, told)
        files = each_file(folder, "feedback")
        texts[told] = next(text for path, text in files.items() if "1+1" in path)
    bug = catalog.entry(SLUG).bug("scale-missing")
    assert "| forward (core) | 0 of 1 |" in texts[Told.SCORE]
    assert bug.title not in texts[Told.SCORE]
    assert "two words" not in texts[Told.SCORE]
    assert bug.title in texts[Told.NAMED]
    assert " ".join(bug.cause.split()) in texts[Told.NAMED]
    assert bug.fix not in texts[Told.NAMED]
    assert " ".join(bug.fix.split()) in texts[Told.FULL]
    for text in texts.values():
        assert "41.4074" not in text
        assert "set-output" not in text


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    with Examiner() as made:
        yield made


# What prints and raises what it was given, to carry it into the feedback.
SMUGGLERS = [
    "print(x)\n    raise ValueError(repr(x))",
    "raise type(f'Leak{abs(int(x.flat[0] * 1e6))}', (Exception,), {})()",
    "raise ValueError(f'Leak\\nLeak{x.flat[0]}\\n  line 7, in Leak: x')",
]


@pytest.mark.long
@pytest.mark.parametrize("slug", ["learnable_prefix", "peft_arithmetic", "subspace_similarity"])
def test_feedback_of_known_mistakes_does_not_leak(
    slug: str, examiner: Examiner, tmp_path: Path
) -> None:
    """Of all catalogued bugs: no number of a message, no line of the suite, no word of a message
    that the catalogue and the rules do not say, in whatever a learner gets."""
    solution = content.solution(slug).read_text()
    sources = [catalog.planted(slug, bug, solution).encode() for bug in catalog.entry(slug).bugs]
    _no_leak(slug, sources, examiner, tmp_path)


def test_what_a_file_raises_and_prints_does_not_leak(examiner: Examiner, tmp_path: Path) -> None:
    """A file cannot carry what it was given into its feedback."""
    added = "\ndef forward(self, x):\n    {}\nLoRA.forward = forward\n"
    sources = [RIGHT + added.format(line).encode() for line in SMUGGLERS]
    texts = _no_leak(SLUG, sources, examiner, tmp_path)
    assert "ValueError in line" in texts
    assert "An exception in line" in texts
    assert "Leak" not in texts
    assert "array(" not in texts


def _no_leak(slug: str, sources: list[bytes], examiner: Examiner, folder: Path) -> str:
    rows = []
    for number, source in enumerate(sources):
        one = submission(f"p{number}", source, slug=slug)
        rows.append((one, [examiner.grade(slug, source, seed=number)]))
    suite = content.suite(slug).read_text().splitlines()
    code = {line.strip() for line in suite if re.search(r"\w+[(=\[.]", line) and len(line) > 20}
    code -= {line for line in code if line.startswith(("def ", '"""'))}
    texts = []
    with store(folder / slug, rows) as results:
        given = [Judged(row) for row in results.rows()]
        for told in LEVELS:
            formats.write(results, folder / slug, told, formats.CHOICES)
            for name in ("feedback", "gradescope", "exercism", "classroom"):
                texts += [
                    f"{path}: {text}" for path, text in each_file(folder / slug, name).items()
                ]
            texts.append((folder / slug / "annotations.txt").read_text())
    whole = "\n".join(texts)
    public = _public(slug)
    secrets = 0
    for graded in given:
        for check in graded.checks:
            numbers = set(re.findall(r"-?\d+\.\d{3,}(?:e-?\d+)?", check.message + check.printed))
            secrets += len(numbers)
            assert not [number for number in numbers - public if number in whole]
            called = re.findall(r"called as: (.{12,})", check.message)
            assert not [line for line in called if line in whole]
    assert secrets > 10  # else nothing was looked for
    assert not [line for line in code if line in whole]
    assert "called as" not in whole
    assert "expected" not in re.sub("[^\n]*Rule:[^\n]*", "", whole)
    return whole


def _public(slug: str) -> set[str]:
    """The numbers that the catalogue and the rules themselves say."""
    texts = [(content.SUITES.parent / "catalog" / f"{slug}.yaml").read_text()]
    return set(re.findall(r"-?\d+\.\d{3,}(?:e-?\d+)?", "".join(texts)))


def test_trouble_says_the_kind_alone(tmp_path: Path) -> None:
    """A file that cannot be loaded: what kind of trouble, in which line; not what it raised."""
    story = "The file cannot be loaded.\nKeyError: 'secret 12345'\n  line 9, in <module>: x[y]"
    checks = dict.fromkeys(ALL, E)
    wrong = verdict(checks, message="Not run: …", error=Trouble(Kind.IMPORT, story))
    one = Judged(_row(tmp_path / "out", wrong))
    told = {level: document(one, level) for level in LEVELS}
    assert "KeyError in line 9." in told[Told.FULL]
    assert "The file cannot be loaded." in told[Told.NAMED]
    assert "line 9" not in told[Told.NAMED]
    assert not any("secret" in text for text in told.values())
    story = "The file cannot be loaded.\nModuleNotFoundError: No module named 'mine.own'\n  line 2"
    lacking = verdict(checks, message="Not run: …", error=Trouble(Kind.IMPORT, story))
    text = document(Judged(_row(tmp_path / "lacking", lacking)), Told.NAMED)
    assert r"It imports \`mine.own\`, which is not there: a submission is one file." in text
    for kind in Kind:
        one = Judged(_row(tmp_path / kind, verdict(checks, error=Trouble(kind, "x"))))
        assert all(document(one, level) for level in LEVELS)


def test_the_stub_is_said_to_be_one(tmp_path: Path) -> None:
    """Where nothing is written yet, that is all that is said, and not that each rule is broken."""
    stub = verdict({**dict.fromkeys(("one", "two"), F), "three": S}, message="Not started yet.")
    one = Judged(_row(tmp_path / "stub", stub))
    for level in LEVELS:
        text = document(one, level)
        assert "nothing is written in it yet" in text
        assert "Rule:" not in text
        assert "## " not in text
    with store(tmp_path / "page", [(submission("ann"), [stub])]) as results:
        assert "Nothing is written in it yet." in grades_html.page(results)


def test_checks_are_as_many_whatever_the_file(tmp_path: Path) -> None:
    """What needs an accelerator is not counted where nobody can know whether there is one."""
    unwritten = verdict({**dict.fromkeys(("one", "two"), F), "three": E}, message="Not run: …")
    last = msgspec.structs.replace(unwritten.checks[-1], part=Part.GPU)
    stopped = msgspec.structs.replace(unwritten, checks=(*unwritten.checks[:-1], last))
    row = _row(tmp_path / "out", stopped)
    assert row.checks == Judged(row).points == (0, 2)


def test_what_is_not_handed_in_has_not_failed(tmp_path: Path) -> None:
    """The totals tell who has failed from who has handed in nothing."""
    missing = Submission(who="bob", slug=SLUG, file="", trouble="Not handed in.")
    rows = [(submission("ann"), [verdict(SOME)]), (missing, [])]
    with store(tmp_path / "out", rows) as results:
        lines = grades.page(grades.Grades(results.rows()), [], 80, False)
        assert lines[-1] == "0 of 2 submissions passed, 1 failed, 1 not handed in."
        words = " ".join(re.sub(r"<[^>]+>", " ", grades_html.page(results)).split())
        assert "2 submissions 1 failed 1 not handed in" in words


def _row(folder: Path, found: Verdict) -> Row:
    with store(folder, [(submission("ann"), [found])]) as results:
        return next(results.rows())


# The report


def test_report_stands_alone(nasty: tuple[Path, Results]) -> None:
    """One page without script, whatever people are called, that says who is to be looked at."""
    _, results = nasty
    text = grades_html.page(results)
    page = Page(text)
    page.stands_alone()
    assert "torch.equal" in page.text
    assert "gc (line 4)" in page.text
    assert "unstable: two_words" in page.text
    assert "All that ran, ran inside it." in page.text
    assert page.text.count(HOSTILE) >= 2
    assert not re.search("[\x00\x08\x1b]", text)


def test_report_says_that_there_was_no_sandbox(tmp_path: Path) -> None:
    with store(tmp_path, [(submission("ann"), [verdict(ALL)])], boxed=False) as results:
        text = Page(grades_html.page(results)).text
    assert "Graded WITHOUT the sandbox: 1 of them." in text
    assert "1 submission ran without it." in text


def test_report_sorts_without_a_script(tmp_path: Path) -> None:
    """Each way to sort is a whole order of the rows, and a button names it."""
    made = [("cem", SOME), ("ada", ALL), ("ben", dict.fromkeys(ALL, F))]
    with store(tmp_path, [(submission(w), [verdict(c)]) for w, c in made]) as results:
        page = Page(grades_html.page(results))
    ids = {a.get("id") for tag, a in page.tags if tag == "input"}
    assert ids == {f"by-{way}" for way, _ in grades_html.SORTS} | {"turned"}
    styles = [a["style"] or "" for tag, a in page.tags if tag == "tr" and "style" in a]
    orders = [dict(re.findall(r"--(\w):(\d+);", style)) for style in styles]
    for way, _ in grades_html.SORTS:
        assert sorted(int(order[way]) for order in orders) == [0, 1, 2]
    assert [order["n"] for order in orders] == ["2", "0", "1"]  # cem, ada, ben
    assert [order["c"] for order in orders] == ["1", "2", "0"]
    css = (Path(grades_html.__file__).parent / "templates" / "style.css").read_text()
    assert all(f"#by-{way}:checked" in css for way, _ in grades_html.SORTS if way != "n")


def test_report_of_a_large_class_is_small(tmp_path: Path) -> None:
    """250 submissions of 40 checks stay far below a megabyte."""
    rng = np.random.default_rng(1)
    rows = []
    for n in range(250):
        checks = {f"a_check_of_some_length_{c}": F if rng.random() < 0.3 else P for c in range(40)}
        rows.append((submission(f"person {n}"), [verdict(checks, bug="scale-missing")]))
    with store(tmp_path, rows) as results:
        text = grades_html.page(results)
    Page(text).stands_alone()
    assert text.count("<td class=x>") > 2000
    assert len(text.encode()) < 700_000


# Item statistics


def test_items_are_those_of_test_theory(tmp_path: Path) -> None:
    """Share failing, and the correlation with the rest, as NumPy has it."""
    rng = np.random.default_rng(3)
    right = rng.random((30, 6)) < np.linspace(0.3, 0.9, 6)
    right[:, 5] = True
    rows = []
    for n, line in enumerate(right):
        checks = {f"c{c}": P if ok else F for c, ok in enumerate(line)}
        rows.append((submission(f"p{n}"), [verdict(checks)]))
    lost = verdict(dict.fromkeys(("c0", "c1"), E), message="Not run: the file could not be loaded.")
    rows.append((submission("lost"), [lost]))
    statistics = Statistics()
    with store(tmp_path, rows) as results:
        for row in results.rows():
            statistics.add(Judged(row))
    items = statistics.items(SLUG)
    assert statistics.judged(SLUG) == 30
    assert [item.failing for item in items] == (~right).sum(axis=0).tolist()
    for c, item in enumerate(items[:5]):
        rest = np.delete(right, c, axis=1).mean(axis=1)
        assert item.discrimination == pytest.approx(np.corrcoef(right[:, c], rest)[0, 1])
    assert items[5].discrimination is None  # all pass it


def test_lessons_count_people(tmp_path: Path) -> None:
    """A question is worth teaching by the people who made mistakes that it drills."""
    entry = catalog.entry(SLUG)
    drilled = [bug for bug in entry.bugs if bug.question]
    first = drilled[0]
    other = next(bug for bug in drilled if bug.question != first.question)
    plain = next(bug for bug in entry.bugs if not bug.question)
    bugs = [first.id, first.id, other.id, plain.id]
    rows = [(submission(f"p{n}"), [verdict(SOME, bug=bug)]) for n, bug in enumerate(bugs)]
    statistics = Statistics()
    with store(tmp_path, rows) as results:
        for row in results.rows():
            statistics.add(Judged(row))
        text = Page(grades_html.page(results)).text
    assert [(one.question, one.people) for one in statistics.lessons()] == [
        (first.question, 2),
        (other.question, 1),
    ]
    assert statistics.mistakes()[0].bug == first.id
    assert statistics.mistakes()[0].count == 2
    assert f"kata quiz --ask {first.question}" in text


# Copies


def test_a_disguised_copy_is_found() -> None:
    """New names, docstrings, comments, quotes, order of methods and layout hide nothing."""
    slug = "lora_linear"
    folder = Path(__file__).parent / "files" / slug / "right"
    honest = [(file.stem, file.read_bytes()) for file in sorted(folder.glob("*.py"))]
    original = content.solution(slug).read_text()
    for old, new in {
        "low": "squeezed", "out": "y", "self.dropout": "self.drop", "base": "frozen",
        "import torch.nn.functional as F": "from torch.nn import functional as fn", "F.": "fn.",
    }.items():  # fmt: skip
        pattern = re.escape(old) if "." in old or " " in old else rf"\b{old}\b"
        original = re.sub(pattern, new, original)
    disguised = re.sub(r'"""(?:.|\n)*?"""', '"""Mine."""', original)
    disguised = disguised.replace("\n\n", "\n\n\n# mine\n")
    compile(disguised, "disguised", "exec")
    sources = [*honest, ("author", content.solution(slug).read_bytes())]
    before = copies.groups(slug, sources)
    assert [group.people for group in before] == [("author", copies.REFERENCE)]
    [group] = copies.groups(slug, [*sources, ("copyist", disguised.encode())])
    assert set(group.people) == {"author", "copyist", copies.REFERENCE}
    assert group.least > 0.9


def test_the_same_is_found_in_any_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many answers, which are not held against one another, the same ones are found."""
    folder = Path(__file__).parent / "files" / "lora_linear" / "right"
    sources = [(file.stem, file.read_bytes()) for file in sorted(folder.glob("*.py"))]
    last = sources[-1][1].replace(b"self", b"this")
    monkeypatch.setattr(copies, "_COMPARED", 2)
    [group] = copies.groups("lora_linear", [*sources, ("copyist", last)])
    assert (group.people, group.least) == (("copyist", sources[-1][0]), 1.0)


@pytest.mark.parametrize("slug", ["lora_linear", "numpy_lora", "nf4_quantize", "multi_lora_batch"])
def test_honest_answers_are_not_alike(slug: str) -> None:
    """Right files written in different ways, of which none is a copy."""
    folder = Path(__file__).parent / "files" / slug / "right"
    sources = [(file.stem, file.read_bytes()) for file in sorted(folder.glob("*.py"))]
    assert len(sources) > 8
    found = copies.groups(slug, sources)
    assert not [group for group in found if len({*group.people} - {copies.REFERENCE}) > 1]


def test_the_stub_is_nobodys_copy() -> None:
    """What the stub gives does not count, nor what is too short, nor what cannot be read."""
    from grader.practice import stubs

    stub = stubs.stub(SLUG).encode()
    odd = [
        b"def LoRA(:\n", b"\x00\xff", b"", b"(" * 5000, b"-" * 100_000 + b"1",
        b"x = [" + b"[" * 90 + b"]" * 90 + b"]\n", b"a = 1\n" * 40_000,
    ]  # fmt: skip
    same = [(f"{kind}{n}", data) for n in range(2) for kind, data in enumerate([stub, *odd])]
    assert copies.groups(SLUG, [(str(who), data) for who, data in same]) == []


# The command


@pytest.mark.long
def test_grade_writes_what_is_asked_for(kata: Kata, tmp_path: Path) -> None:
    """The page, the learners' files and the formats named, at the level asked, also later."""
    folder = lay(tmp_path / "class", {"ann__numpy_lora.py": RIGHT, "ben__numpy_lora.py": WRONG})
    out = tmp_path / "out"
    plain = ("--no-sandbox", "--seeds", "1", "--jobs", "1")
    asked = ("--format", "junit", "--format", "gradescope", "--feedback", "score")
    done = kata("grade", str(folder), "--out", str(out), *plain, *asked)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "report.html, results.json, results.csv, junit.xml, feedback/, gradescope/" in said
    Page((out / "report.html").read_text()).stands_alone()
    assert set(each_file(out, "gradescope")) == {"ann.json", "ben.json"}
    ben = (out / "feedback" / "ben" / f"{SLUG}.md").read_text()
    assert "checks pass" in ben
    assert "Why" not in ben
    (out / "junit.xml").unlink()
    again = kata("grade", "--resume", "--out", str(out), "--feedback", "named")
    assert again.returncode == 0, again.stderr
    assert (out / "junit.xml").exists()
    assert "Why: " in (out / "feedback" / "ben" / f"{SLUG}.md").read_text()
    wrong = kata("grade", str(folder), "--out", str(out), "--format", "pdf")
    assert wrong.returncode == 2
    assert (formats.CHOICES, tuple(Told)) == (command._FORMATS, command._LEVELS)
    assert "junit" in wrong.stderr
