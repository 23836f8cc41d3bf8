"""A bank of four questions: a, b and c on lora, which are spoken, and `count` on rank, a number."""

from pathlib import Path

CLONE = Path(__file__).parent.parent


def spoken(id: str, topic: str = "lora") -> str:
    return f"""\
- id: {id}
  topic: {topic}
  kind: recall
  difficulty: easy
  prompt: What about $W_0 + \\frac{{\\alpha}}{{r}} BA$ in {id}?
  answer: |
    A model answer to {id}, long enough to be wrapped on a terminal of sixty columns, with the
    formula $h = W_0 x + \\frac{{\\alpha}}{{r}} B A x$ and `code`.
  points: [point one, point two, point three, point four]
  followups:
    - {{prompt: Why?, answer: "Because of {id}."}}
    - {{prompt: And if not?, answer: Then not.}}
  sources: [a paper]
  katas: [lora_linear]
"""


NUMERIC = """\
- id: count
  topic: rank
  kind: apply
  difficulty: easy
  prompt: A layer of [[d]] to [[d]], rank [[r]]. How many parameters train?
  numeric:
    draw: {d: [1024, 2048, 4096], r: [4, 8, 16]}
    answer: "2 * r * d"
    unit: parameters
    tolerance: 0.01
    slips: [{value: "r * d", why: "Only A is counted, [[r * d]]; B is as large."}]
  answer: "[[2 * r * d]] train."
  points: [both factors, no bias, linear in r]
  followups:
    - {prompt: "And at rank [[2 * r]]?", answer: "[[4 * r * d]]"}
    - {prompt: And?, answer: And.}
  sources: [a paper]
  katas: []
"""
ONE_DRAW = NUMERIC.replace("[1024, 2048, 4096]", "[1024]").replace("[4, 8, 16]", "[8]")


def clone(folder: Path, number: str = NUMERIC) -> Path:
    """A clone of ours with these questions alone, in a new folder."""
    (folder / "questions").mkdir(parents=True)
    for part in ("grader", "solutions", "katas"):
        (folder / part).symlink_to(CLONE / part)
    (folder / "questions" / "lora.yaml").write_text("".join(map(spoken, "abc")))
    (folder / "questions" / "rank.yaml").write_text(number)
    return folder
