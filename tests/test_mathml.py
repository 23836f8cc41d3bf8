"""Formulas as MathML: each one of the question bank is set as it was when people read it over.

`formulas.txt` holds the structure of each below its LaTeX; `pytest tests/test_mathml.py
--update-goldens` writes it anew: read what has changed, against the LaTeX, before it is committed.
An element stands as `name{part}{part}`, a group as its parts in braces, a thin space as `~`, and
`⏎` where a line may end. What is not as usual (`usually`) has it behind a colon: `prefix` is the
sign of a number, `mi` a letter that looks like a sign, `?` the lack of all that is usual.
"""

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from grader.recall import bank, numbers
from grader.views import mathml, maths

FILE = Path(__file__).with_name("formulas.txt")
SHORT = {"mfrac": "frac", "mroot": "root", "msqrt": "sqrt", "mtr": "row", "mtd": "cell"}
UPRIGHT, FIXED = ("mathvariant", "normal"), ("stretchy", "false")
TIGHT = {("lspace", "0"), ("rspace", "0")}
PREFIX, INFIX = {("form", "prefix"), *TIGHT}, {("form", "infix")}


SHOULD_BE = {
    # bars of norms, brackets: as high as a letter, and a sign behind them adds or subtracts
    r"\lVert x \rVert_2": "{‖ x sub{‖}{2}}",
    r"|-x| - 1": "{| −:prefix x | − 1}",
    r"\lfloor n/2 \rfloor": "{⌊ n / 2 ⌋}",
    r"\langle a, b \rangle - c": "{⟨ a , b ⟩ − c}",
    # signs of numbers
    "-a": "{−:prefix a}",
    "a - b": "{a − b}",
    "a = -b": "{a = −:prefix b}",
    r"\{a\} - 1": "{\\{ a \\} − 1}",
    r"5\% - 3": "{5 % − 3}",
    "a^{-b}": "{sup{a}{−:prefix b}}",
    r"x \pm 1": "{x ± 1}",
    # numbers of four digits and more
    "18{,}874{,}368": "{18,874,368}",
    r"16,777,216 \cdot 2": "{16,777,216 · 2}",
    "(1, 128)": "{( 1 , 128 )}",
    "x_{12}, x_12": "{sub{x}{12} , sub{x}{1} 2}",
    # names of functions
    r"2\log n": "{2 ~ log ~ n}",
    r"-\log \sigma(m)": "{−:prefix log ~ σ ( m )}",
    r"\max(a, b)": "{max ( a , b )}",
    r"\log_2 n": "{sub{log}{2} ~ n}",
    r"\mathrm{rank}(A) = \operatorname{tr} B": "{rank ( A ) = tr ~ B}",
    # letters
    r"\Delta W + \partial\sigma": "{Δ W + ∂ σ}",
    r"\mathbb{R}^{d \times r}": "{sup{ℝ}{d × r}}",
    r"\mathrm{d}x + A_\mathrm{F}": '{"d" x + sub{A}{"F"}}',
    r"d_{\text{model}}": '{sub{d}{"model"}}',
    r"\text{if } x": '{"if\u00a0" x}',
    # the rest
    r"f''(x) + W'": "{sup{f}{″} ( x ) + sup{W}{′}}",
    r"W^\top": "{sup{W}{⊤}}",
    r"a \sim b : c": "{a ∼ b \\: c}",
    r"\frac12 \sqrt2": "{frac{1}{2} sqrt{2}}",
    r"\sum_{i=1}^{n} x_i": "{subsup{∑}{i = 1}{n} sub{x}{i}}",
    r"\begin{pmatrix}a&-b\\c&d\end{pmatrix}": (
        "{(:? table{row{cell{a}}{cell{−:prefix}{b}}}{row{cell{c}}{cell{d}}} ):?}"
    ),
}


def used() -> list[str]:
    """The LaTeX of every formula of the bank, each once, with numbers drawn."""
    found = set()
    for question in bank.load():
        texts = [question.prompt, question.answer, *question.points]
        texts += [text for asked in question.followups for text in (asked.prompt, asked.answer)]
        if question.numeric is not None:
            names = numbers.drawn(question.numeric, 0)
            texts = [numbers.filled(text, names) for text in texts]
        blocks = (block for text in texts for block in maths.parser().parse(text))
        for token in (token for block in blocks for token in block.children or ()):
            if token.type == "formula":
                found.add(token.content)
    return sorted(found)


def structure(tex: str) -> str:
    """How the formula is set, in a line."""
    parts = ElementTree.fromstring(f"<p>{mathml.mathml(tex)}</p>")
    return " ⏎ ".join(piece(row) for part in parts for row in part)


def piece(element: Element) -> str:
    kind, text = element.tag.rpartition("}")[2], element.text or ""
    asked = set(element.attrib.items())
    if kind == "mspace":
        return "~" if asked == {("width", "0.167em")} else f"~{element.get('width')}"
    if kind == "mtext":
        shown, usual = f'"{text}"', set[tuple[str, str]]()
    elif kind in ("mi", "mn", "mo"):
        shown = "".join(f"\\{c}" if c in "{}:~" else c for c in text)
        looks, usual = usually(text)
        shown += f":{kind}" * (kind != looks)
    else:
        inside = [piece(one) for one in element]
        groups = (one if one.startswith("{") else f"{{{one}}}" for one in inside)
        name = SHORT.get(kind, kind.removeprefix("m"))
        shown = f"{{{' '.join(inside)}}}" if kind == "mrow" else name + "".join(groups)
        usual = set()
    if asked == usual:
        return shown
    if kind == "mo" and asked == PREFIX:
        return f"{shown}:prefix"
    if kind == "mo" and asked == INFIX:  # said where it stands first, in a new line
        return shown
    return ":".join(
        (shown, *(f"{name}={value}" for name, value in sorted(asked)), *"?" * (not asked))
    )


def usually(text: str) -> tuple[str, set[tuple[str, str]]]:
    """The kind and the settings of most tokens with this text, which go without saying."""
    if text[0].isdigit():
        return "mn", set()
    if text.isalpha() or text in "∂∇∞%":
        slanted = len(text) == 1 and (text.isascii() or text in "αβγδεζηθικλμνξοπρστυφχψωϵϑϕ")
        return "mi", set() if slanted and text != "%" else {UPRIGHT}
    if text in "()[]{}⌊⌋⌈⌉⟨⟩":
        return "mo", {FIXED}
    return "mo", {FIXED, *TIGHT} if text in "/|‖" else set()


@pytest.mark.parametrize("tex", SHOULD_BE)
def test_formulas_are_set_as_tex_sets_them(tex: str) -> None:
    assert structure(tex) == SHOULD_BE[tex]


def test_every_formula_of_the_bank_is_set_as_it_was_read_over(
    request: pytest.FixtureRequest,
) -> None:
    """Each, and no other, is in the file with the structure that it has."""
    found = {tex: structure(tex) for tex in used()}
    if request.config.getoption("--update-goldens"):
        FILE.write_text("".join(f"{tex}\n    {set_}\n" for tex, set_ in found.items()))
    lines = FILE.read_text().splitlines()
    assert found == dict(zip(lines[::2], (line.strip() for line in lines[1::2])))


@pytest.mark.parametrize("tex", [r"\arg x", r"\boldsymbol{x}", r"\textbf{x}"])
def test_what_would_be_set_wrongly_is_shown_as_it_is_written(tex: str) -> None:
    """An unknown command, letters of a kind that browsers set as any other."""
    with pytest.raises(ValueError, match="cannot be set"):
        mathml.mathml(tex)
    assert mathml.markdown(f"${tex}$") == f"<p><code>{tex}</code></p>\n"
