"""Markdown and formulas on a terminal."""

import pytest

from grader.views.formula import unicode
from grader.views.maths import columns, line, markdown

FORMULAS = {
    r"W = W_0 + \frac{\alpha}{r}BA": "W = W₀ + (α/r) BA",
    r"\Delta W=BA,\ B\in\mathbb{R}^{d\times r}": "ΔW = BA, B ∈ ℝ^(d × r)",
    r"r(d_{in}+d_{out})": "r(dᵢₙ + dₒᵤₜ)",
    r"d_{\text{model}}d_{ff}": "d_model d_ff",
    r"W_q, W_k, W_v": "W_q, W_k, W_v",
    r"\frac{a + b}{r}": "(a + b)/r",
    r"\frac{1}{2d}": "1/(2d)",
    r"\frac{QK^\top}{\sqrt{d_k}}": "QKᵀ/√dₖ",
    r"\frac{\frac{a}{b}}{c}": "(a/b)/c",
    r"\frac{V}{\lVert V \rVert_c}": "V/‖V‖_c",
    r"\frac{\partial L}{\partial W}": "∂L/∂W",
    r"\left(\frac{a}{b}\right)^2": "(a/b)²",
    r"\frac12 x": "(1/2) x",
    r"\sum_{i=1}^{n} \sigma_i u_i v_i^\top": "∑ᵢ₌₁ⁿ σᵢ uᵢ vᵢᵀ",
    r"e^{-x^2/2}": "e^(−x²/2)",
    r"10^{-4}": "10⁻⁴",
    r"x_q": "x_q",
    r"a^{b_c}": "a^(b_c)",
    r"-x + (-1)": "−x + (−1)",
    r"2 \times 4096 = 8{,}192": "2 × 4096 = 8,192",
    r"16,777,216 \cdot 2": "16,777,216 ⋅ 2",
    r"f(x,y)": "f(x, y)",
    r"[p_1 \dots p_P; e(x_1) \dots e(x_L)]": "[p₁ … p_P; e(x₁) … e(x_L)]",
    r"0 \dots i": "0 … i",
    r"x_1, \dots, x_n, (\dots)": "x₁, …, xₙ, (…)",
    r"\lceil \log_2 n \rceil": "⌈log₂ n⌉",
    r"\hat{x}_i": "x̂ᵢ",
    r"5%": "5%",
    r"5\%": "5%",
    r"x \in \{0, 1\}": "x ∈ {0, 1}",
    r"\begin{pmatrix}a&b\\c&d\end{pmatrix}": "[a, b; c, d]",
}


@pytest.mark.parametrize("latex", FORMULAS)
def test_formula(latex: str) -> None:
    """A formula reads as people would type it, and means what it meant."""
    assert unicode(latex).replace("\u00a0", " ") == FORMULAS[latex]


@pytest.mark.parametrize(
    "latex", ["", "{", "$", r"\frac", r"\frac{a", "x^", "_", r"\nothing{x}", "}{"]
)
def test_broken_formula_is_shown_without_an_error(
    latex: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is raised and nothing is written elsewhere."""
    assert isinstance(unicode(latex), str)
    assert capfd.readouterr() == ("", "")


TEXT = r"""
A **frozen $W_0$** and *never* `F.linear(x, B @ A)`. It costs $5 or $6, and $\frac{\alpha}{r}$.

- one with $h = W_0 x + \frac{\alpha}{r} B A x + \sum_{i=1}^{n} \sigma_i u_i v_i^\top + \epsilon$
  continued
  1. nested

```
y = base(x)
```

| method | trains |
| --- | --- |
| LoRA | $r(d + k)$ |

> quoted
"""


def test_plain_text() -> None:
    """Without colour: no escape, no marks of Markdown or LaTeX, code between back quotes."""
    assert markdown(TEXT, 60, False) == [
        "A frozen W₀ and never `F.linear(x, B @ A)`. It costs $5 or",
        "$6, and α/r.",
        "",
        "- one with h = W₀ x + (α/r) B A x + ∑ᵢ₌₁ⁿ σᵢ uᵢ vᵢᵀ + ε",
        "  continued",
        "  1. nested",
        "",
        "    y = base(x)",
        "",
        "method  trains",
        "LoRA    r(d + k)",
        "",
        "> quoted",
    ]


def test_colour() -> None:
    """With colour: bold, italic and code are painted, and the back quotes go."""
    text = "\n".join(markdown(TEXT, 100, True))
    assert "\x1b[1mfrozen W₀\x1b[0m" in text
    assert "\x1b[3mnever\x1b[0m" in text
    assert "\x1b[36mF.linear(x, B @ A)\x1b[0m" in text


@pytest.mark.parametrize("width", [40, 60, 100])
def test_lines_fit(width: int) -> None:
    """No line is wider than asked for, whatever stands in it."""
    long = "x" * 150 + r" $a = b + c + d + e + f + g + h + i + j + k + l + m + n + o + p$ " + TEXT
    assert max(map(columns, markdown(long, width, False))) <= width


def test_formula_breaks_before_operators_only() -> None:
    """A long formula is broken where a reader would, never inside brackets."""
    (first, second) = markdown(r"$W' = W_0 + s_1 (B_1 A_1 + B_2 A_2 + B_3 A_3) + s_2 C$", 40, False)
    assert first == "W′ = W₀ + s₁ (B₁ A₁ + B₂ A₂ + B₃ A₃)"
    assert second == "+ s₂ C"


def test_one_line() -> None:
    """`line` gives a short text without wrapping."""
    assert line("a $x_1$\nb", False) == "a x₁ b"
