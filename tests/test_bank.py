"""The question bank: what is refused, with file, line, question and field; and the real one."""

import importlib.util
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from grader.recall import bank, numbers, quiz
from grader.recall.bank import BankError, Question, UnknownQuestion, UnknownTopic
from grader.views.maths import columns, markdown

GOOD = """\
- id: one-two
  topic: lora
  kind: apply
  difficulty: easy
  prompt: How many?
  numeric:
    draw: {r: [2, 4]}
    answer: "2 * r"
    unit: parameters
    tolerance: 0.01
    slips: [{value: "r", why: "Only one."}]
  answer: "[[2 * r]]"
  points: [a, b, c]
  followups:
    - {prompt: p, answer: a}
    - prompt: p
      answer: a
  sources: [s]
  katas: [lora_linear]
"""


def _faults(tmp_path: Path, **files: str) -> list[str]:
    """What is wrong in a bank of these files, as it is told."""
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(BankError) as caught:
        bank.load(tmp_path)
    return [str(fault) for fault in caught.value.faults]


def test_good(tmp_path: Path) -> None:
    """The bank that the others here spoil is sound."""
    (tmp_path / "lora.yaml").write_text(GOOD)
    (question,) = bank.load(tmp_path)
    assert question.id == "one-two"
    assert question.numeric is not None
    assert quiz.filled(question, {"r": 4}).answer == "8"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("  points: [a, b, c]\n", "", "lora.yaml:1: one-two, points: is missing"),
        ("  sources", "  colour: red\n  sources", "lora.yaml:18: one-two, colour: unknown field"),
        ("[a, b, c]", "[a, b]", "lora.yaml:13: one-two, points: are 2; a rubric has 3 to 6"),
        ("[a, b, c]", "[a, 2, c]", "lora.yaml:13: one-two, points[2]: Expected `str`, got `int`"),
        ("[a, b, c]", "[a, b, ' ']", "lora.yaml:13: one-two, points: holds an empty text"),
        ("[a, b, c]", "abc", "lora.yaml:13: one-two, points: a list is wanted"),
        ("kind: apply", "kind: trivia", "lora.yaml:3: one-two, kind: Invalid enum value 'trivia'"),
        ("id: one-two", "id: One Two", "lora.yaml:1: One Two, id: is not lower-case words"),
        ("topic: lora", "topic: rank", "lora.yaml:2: one-two, topic: is rank, the file is lora"),
        ("prompt: How many?", "prompt: ' '", "lora.yaml:5: one-two, prompt: is empty"),
        (
            "    - {prompt: p, answer: a}\n",
            "",
            "lora.yaml:14: one-two, followups: are 1; 2 or more",
        ),
        ("{prompt: p, answer: a}", "{prompt: p}", "15: one-two, followups[1].answer: is missing"),
        ("{prompt: p,", "{why: q, prompt: p,", "15: one-two, followups[1].why: unknown field"),
        ("lora_linear", "lora_lin", "lora.yaml:19: one-two, katas: there is no kata lora_lin"),
        ("unit: parameters", "unit: bananas", "one-two, numeric: unit bananas: there are"),
        ("    unit: parameters\n", "", "lora.yaml:7: one-two, numeric.unit: is missing"),
        ("tolerance: 0.01", "tolerance: 2.0", "numeric: tolerance 2.0 is outside"),
        ('value: "r"', 'value: "2 * r"', "numeric: slip 2 * r is the answer at {'r': 2}"),
        (
            'why: "Only one."}',
            'why: "Only one."}, {value: "1.005 * r", why: "Nearly."}',
            "numeric: slip 1.005 * r is slip r at {'r': 2}",
        ),
        ('"2 * r"', '"2 * q"', "numeric: `2 * q` cannot be computed"),
        ("[[2 * r]]", "[[2 *]]", "numeric: `2 *` cannot be computed"),
        ("{r: [2, 4]}", "{r: []}", "numeric: draw: every name needs choices"),
        ("kind: apply", "kind: recall", "numeric: belongs to questions of kind apply, not recall"),
        (
            "  kind: apply",
            "  kind: apply\n  kind: apply",
            "lora.yaml:4: one-two, kind: stands twice",
        ),
    ],
)
def test_one_fault(tmp_path: Path, old: str, new: str, fault: str) -> None:
    """Each kind of fault is told once, where it stands."""
    assert old in GOOD
    (told,) = _faults(tmp_path, lora=GOOD.replace(old, new, 1))
    assert fault in told


def test_all_faults_at_once(tmp_path: Path) -> None:
    """Broken YAML in one file hides nothing in the others; every fault has its own line."""
    spoilt = GOOD.replace("[a, b, c]", "[1, b, 3]").replace("  difficulty: easy\n", "")
    assert _faults(
        tmp_path,
        adapters="- id: [broken\n",
        lora=f"{spoilt}- just a text\n{GOOD}",
        quantization=GOOD.replace("lora", "quantization", 1),
        rank="a: mapping\n",
        serving="",
    ) == [
        "adapters.yaml:2: YAML: did not find expected ',' or ']' while parsing a flow sequence",
        "lora.yaml:12: one-two, points[1]: Expected `str`, got `int`",
        "lora.yaml:12: one-two, points[3]: Expected `str`, got `int`",
        "lora.yaml:1: one-two, difficulty: is missing",
        "lora.yaml:19: question 2: a mapping is wanted",
        "quantization.yaml:1: one-two, id: this id is taken by lora.yaml:20",
        "rank.yaml:1: a list of questions is wanted",
        "serving.yaml:1: a list of questions is wanted",
    ]


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"- {a: *b}", b"- !!python/object:os.system x", b"[" * 20_000]
)
def test_hostile_files(tmp_path: Path, content: bytes) -> None:
    """What is no YAML of ours is a fault of its file, never a traceback."""
    (tmp_path / "lora.yaml").write_bytes(content)
    with pytest.raises(BankError, match=r"lora\.yaml:\d+: "):
        bank.load(tmp_path)


def test_decks(tmp_path: Path) -> None:
    """The core deck comes first, whatever the files are called; a frontier file holds any topic,
    and each deck stands in its own files."""
    newer = GOOD.replace("one-two", "new").replace("topic: lora", "topic: rank\n  deck: frontier")
    (tmp_path / "frontier_a.yaml").write_text(newer)
    (tmp_path / "lora.yaml").write_text(GOOD)
    assert [(q.id, q.deck) for q in bank.load(tmp_path)] == [
        ("one-two", "core"),
        ("new", "frontier"),
    ]
    other = tmp_path / "other"
    other.mkdir()
    assert _faults(
        other,
        frontier=GOOD,
        lora=GOOD.replace("one-two", "b").replace("topic", "deck: frontier\n  topic"),
        rank=GOOD.replace("one-two", "c").replace("topic: lora", "topic: rank\n  deck: side"),
    ) == [
        "frontier.yaml:1: one-two, deck: is core, the file is frontier.yaml",
        "lora.yaml:2: b, deck: is frontier, the file is lora.yaml",
        "rank.yaml:3: c, deck: Invalid enum value 'side'",
    ]


def test_empty_folder(tmp_path: Path) -> None:
    """A bank without questions is a fault too."""
    with pytest.raises(BankError, match="there are no questions here"):
        bank.load(tmp_path)


# The real bank


QUESTIONS = Path(__file__).parent.parent / "questions"
ROUTES_FOLDER = Path(__file__).parent / "second_route"
Route = Callable[..., float]


def _routes(file: str) -> dict[str, Route]:
    """Those for the questions of one file."""
    path = ROUTES_FOLDER / f"{file}.py"
    if not path.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"second_route_{file}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    routes: dict[str, Route] = module.ROUTES
    return routes


def _ids() -> dict[str, str]:
    """Every question's id with its file's name, without validating anything."""
    return {
        entry["id"]: path.stem
        for path in sorted(QUESTIONS.glob("*.yaml"))
        for entry in yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    }


FILES = _ids()


@pytest.fixture(scope="module")
def questions() -> dict[str, Question]:
    return {question.id: question for question in bank.load()}


def test_it_is_whole(questions: dict[str, Question]) -> None:
    """The core deck: forty questions, every kind and topic, at least twelve with drawn numbers."""
    core = [question for question in questions.values() if question.deck == bank.CORE]
    assert len(core) == 40
    assert {question.kind for question in core} == set(bank.KINDS)
    assert {question.topic for question in core} == set(bank.TOPICS)
    assert sum(question.numeric is not None for question in core) >= 12


def test_both_decks_together(questions: dict[str, Question]) -> None:
    """There are easy ones to warm up with, and numbers of other kinds than bytes."""
    assert sum(question.difficulty == "easy" for question in questions.values()) >= 8
    asked = [question.numeric for question in questions.values() if question.numeric is not None]
    assert {"bytes", "ms", "tokens", "GPUs", "times", "percent"} <= {n.unit for n in asked}


@pytest.mark.parametrize("id", FILES)
def test_second_route(questions: dict[str, Question], id: str) -> None:
    """Over all draws the answer is what another way of computing it gives, and no two slips are
    alike; what is not numeric has no second route."""
    numeric = questions[id].numeric
    route = _routes(FILES[id]).get(id)
    assert (route is None) == (numeric is None)
    if route is None or numeric is None:
        return
    for names in numbers.all_draws(numeric):
        answer = numbers.value(numeric.answer, names)
        assert answer == pytest.approx(route(**names), rel=min(1e-6, numeric.tolerance)), names
        slips = [numbers.value(slip.value, names) for slip in numeric.slips]
        for one, other in itertools.combinations(slips, 2):
            assert not numbers.close(one, other, numeric.tolerance), names
        shown = numbers.quantity(answer, numeric.unit)
        assert numbers.judge(numeric, names, numbers.shown(answer)).correct, shown


def test_no_route_is_left_over() -> None:
    """Each second route is of a question in the file of the same name."""
    for path in ROUTES_FOLDER.glob("*.py"):
        for id in _routes(path.stem):
            assert FILES[id] == path.stem, id


def test_points_write_formulas_as_latex(questions: dict[str, Question]) -> None:
    """Greek letters, signs and powers stand in `$...$`, a number's formula in `[[...]]`."""
    bare = re.compile(r"[\u0370-\u03ff\u00b2\u00b3\u00b9\u2070-\u209f\u2212\u2248]| [×·] [A-Za-z(]")
    for id, question in questions.items():
        for point in question.points:
            assert not bare.search(re.sub(r"\$[^$]*\$|\[\[.*?\]\]|`[^`]*`", "", point)), (id, point)


@pytest.mark.parametrize("id", FILES)
def test_texts_are_clean(questions: dict[str, Question], id: str) -> None:
    """At 60 columns no text has a wide line or a rest of LaTeX, Markdown or unfilled numbers;
    the model answer can be said in two minutes."""
    question = questions[id]
    if question.numeric is not None:
        question = quiz.filled(question, numbers.drawn(question.numeric, 0))
    texts = [question.prompt, question.answer, *question.points]
    texts += [text for f in question.followups for text in (f.prompt, f.answer)]
    for text in texts:
        for line in markdown(text, 60, False):
            assert columns(line) <= 60 or line.startswith("    "), line
            outside_code = re.sub(r"`[^`]*`", "", line)
            assert not re.search(r"\\[a-z]|[_^]\{|\*\*|\[\[|\]\]|\^\(\)", outside_code), line
            assert "$" not in re.sub(r"\$\d", "", outside_code), line
    assert 60 <= len(question.answer.split()) <= 300


def test_find(questions: dict[str, Question]) -> None:
    """An id or topic is found by what only it begins with; the nearest are named otherwise."""
    some = next(iter(questions))
    assert bank.find(some) == some
    assert bank.find(some.replace("-", "_").upper()) == some
    with pytest.raises(UnknownQuestion, match=f"Did you mean .*{some}"):
        bank.find(some[:-1] + "xx")
    assert bank.topic("quant") == "quantization"
    with pytest.raises(UnknownTopic, match=r"Did you mean lora\?"):
        bank.topic("lorra")
    with pytest.raises(UnknownTopic, match="There are lora, rank"):
        bank.topic("zzz")
