"""LaTeX formulas as one line of readable Unicode.

pylatexenc parses and knows the symbols; what it leaves flat (fractions, scripts, spacing) is
laid out here. Whatever cannot be understood is shown as it was written, without an error.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

_SUPERSCRIPTS = dict(
    zip(
        "0123456789+−-=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVWβγδθφχ⊤*′†",
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂᵝᵞᵟᶿᵠᵡᵀ*′†",
        strict=True,
    )
)
_SUBSCRIPTS = dict(
    zip(
        "0123456789+−-=()aehijklmnoprstuvxβγρφχ",
        "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ",
        strict=True,
    )
)
_ACCENTS = {
    "hat": "\u0302",
    "widehat": "\u0302",
    "tilde": "\u0303",
    "widetilde": "\u0303",
    "bar": "\u0304",
    "overline": "\u0304",
    "dot": "\u0307",
    "ddot": "\u0308",
    "vec": "\u20d7",
}
_WORDS = {"text", "mbox", "textbf", "textit", "texttt", "textrm", "textsf", "mathrm", "mathtt"}
_PLAIN = {"mathbf", "boldsymbol", "bm", "mathit", "mathsf", "boxed", "underline", "ensuremath"}
_FRACTIONS = {"frac", "dfrac", "tfrac", "cfrac"}
_SIZES = {"left", "right", "middle", "big", "Big", "bigg", "Bigg", "limits", "nolimits"}
_SIZES |= {size + side for size in ("big", "Big", "bigg", "Bigg") for side in "lrm"}
_SIZES |= {"displaystyle", "textstyle", "scriptstyle"}
_SPACES = {",", ";", ":", ">", " ", "quad", "qquad", "space", "enspace", "thinspace"}
_NAMED = "log ln lg exp min max arg argmin argmax sup inf lim det dim ker gcd sin cos tan tanh Pr"
_OPERATORS = {name: name for name in _NAMED.split()}
_OPERATORS |= {"sum": "∑", "prod": "∏", "int": "∫", "bigoplus": "⊕", "bigcup": "⋃"}
_BINARY = {
    **{"times": "×", "cdot": "⋅", "odot": "⊙", "otimes": "⊗", "oplus": "⊕", "pm": "±", "mp": "∓"},
    **{"circ": "∘", "div": "÷", "ast": "*", "cup": "∪", "cap": "∩", "star": "⋆", "setminus": "∖"},
    **{"bmod": "mod", "land": "∧", "wedge": "∧", "lor": "∨", "vee": "∨", "bullet": "•"},
}
_RELATIONS = {
    **{"approx": "≈", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠"},
    **{"equiv": "≡", "propto": "∝", "in": "∈", "notin": "∉", "subset": "⊂", "subseteq": "⊆"},
    **{"sim": "∼", "simeq": "≃", "cong": "≅", "to": "→", "rightarrow": "→", "leftarrow": "←"},
    **{"Rightarrow": "⇒", "Leftarrow": "⇐", "longrightarrow": "→", "implies": "⇒", "iff": "⇔"},
    **{"gets": "←", "mapsto": "↦", "ll": "≪", "gg": "≫", "mid": "|", "perp": "⊥", "parallel": "∥"},
    **{
        "coloneqq": "≔",
        "leftrightarrow": "↔",
        "Leftrightarrow": "⇔",
        "gtrsim": "≳",
        "lesssim": "≲",
    },
    **{"lt": "<", "gt": ">", "succ": "≻", "prec": "≺"},
}
_OPEN = {"lfloor": "⌊", "lceil": "⌈", "langle": "⟨", "lVert": "‖", "lvert": "|", "{": "{"}
_CLOSE = {"rfloor": "⌋", "rceil": "⌉", "rangle": "⟩", "rVert": "‖", "rvert": "|", "}": "}"}
_SYMBOLS = {
    **{"|": "‖", "Vert": "‖", "vert": "|", "top": "⊤", "prime": "′", "dagger": "†", "ell": "ℓ"},
    **{"%": "%", "$": "$", "#": "#", "&": "&", "_": "_", "ldots": "…", "dots": "…", "cdots": "⋯"},
    **{"epsilon": "ε", "varepsilon": "ε", "phi": "φ", "varphi": "φ", "vdots": "⋮", "ddots": "⋱"},
}
_DOTS = {"…", "⋯"}  # what is left out stands apart on both sides
_SHORT = 24  # a formula up to this long stays on one line
_TIE = "\u00a0"


@dataclass
class _Atom:
    """One piece of a row. `kind` is TeX's class of it, or "fraction", or "word" (upright text);
    `spaced`: a space stood before it; `single`: it is one factor, fit to stand under a slash."""

    text: str
    kind: str = "ord"
    spaced: bool = False
    single: bool = True
    script: bool = False  # ends in a script that is spelt out, as in d_model


def unicode(latex: str) -> str:
    """The formula as text. Where it may be broken into lines stands a space, elsewhere a
    no-break space."""
    latex = " ".join(latex.split())
    try:
        text = _joined(_Row(_stream(latex)).atoms())
    except Exception:  # a parser's trouble with a formula is no reason to show none
        text = ""
    return _tied(unicodedata.normalize("NFC", text).strip() or latex)


def _tied(text: str) -> str:
    """Break long formulas before relations and operators outside brackets only."""
    if len(text) <= _SHORT:
        return text.replace(" ", _TIE)
    signs = {*_BINARY.values(), *_RELATIONS.values(), *"+−=<>"}
    words = text.split(" ")
    out, depth = words[0], _depth(words[0])
    for word in words[1:]:
        # A lone left side such as "W =" is not left behind.
        breaks = depth <= 0 and word in signs and len(out) > 6
        out += (" " if breaks else _TIE) + word
        depth += _depth(word)
    return out


def _depth(text: str) -> int:
    return sum(text.count(c) for c in "([{⌊⌈⟨") - sum(text.count(c) for c in ")]}⌋⌉⟩")


@cache
def _context() -> Any:
    from pylatexenc.latexwalker import get_default_latex_context_db
    from pylatexenc.macrospec import std_macro

    context = get_default_latex_context_db()
    one = [*_WORDS, *_PLAIN, *_ACCENTS, "operatorname", "mathbb", "mathcal", "mathfrak"]
    context.add_context_category(
        "kata",
        macros=[std_macro(m, False, 1) for m in one]
        + [std_macro(m, False, 2) for m in (*_FRACTIONS, "binom")],
        prepend=True,
    )
    return context


def _stream(latex: str) -> list[Any]:
    from pylatexenc.latexwalker import LatexWalker

    safe = ""
    for at, character in enumerate(latex):  # a bare % would begin a comment
        bare = character == "%" and (at == 0 or latex[at - 1] != "\\")
        safe += "\\%" if bare else character
    walker = LatexWalker(safe, latex_context=_context(), tolerant_parsing=True)
    return _flat(walker.get_latex_nodes()[0])


def _flat(nodes: Iterable[Any]) -> list[Any]:
    """Single characters and other nodes, in order."""
    stream: list[Any] = []
    for node in nodes:
        if node is None:
            continue
        if node.isNodeType(_node("LatexCharsNode")):
            stream += node.chars
        elif not node.isNodeType(_node("LatexCommentNode")):
            stream.append(node)
    return stream


def _node(name: str) -> Any:
    from pylatexenc import latexwalker

    return getattr(latexwalker, name)


class _Row:
    """Reads a stream into atoms."""

    def __init__(self, stream: Sequence[Any]) -> None:
        self.stream, self.at = stream, 0
        self.found: list[_Atom] = []
        self.spaced = False

    def atoms(self) -> list[_Atom]:
        while self.at < len(self.stream):
            item = self.stream[self.at]
            self.at += 1
            if not isinstance(item, str):
                self._node(item)
            elif item.isspace():
                self.spaced = True
            elif item in "_^":
                self._script(item)
            elif item == "'":
                self._attach("′")
            else:
                self._character(item)
        return self.found

    def _next(self) -> str:
        """The character that comes next, if it is one."""
        item = self.stream[self.at] if self.at < len(self.stream) else ""
        return item if isinstance(item, str) else ""

    def _add(self, text: str, kind: str = "ord", single: bool = True) -> None:
        if text:
            self.found.append(_Atom(text, kind, self.spaced, single))
            self.spaced = False

    def _attach(self, text: str, spelt: bool = False) -> None:
        """Put a script to the last atom."""
        if not self.found or self.found[-1].kind in ("bin", "rel", "open", "punct", "space"):
            self._add("")
            self.found.append(_Atom("", spaced=self.spaced))
        last = self.found[-1]
        if last.kind == "fraction" or (last.kind == "group" and not _single(last)):
            last.text, last.kind, last.single = f"({last.text})", "ord", True
        last.text += text
        last.script = spelt

    def _character(self, character: str) -> None:
        last = self.found[-1] if self.found else None
        grows = last is not None and last.kind == "run" and not self.spaced and not last.script
        if character.isalnum() or character == ".":
            if last is not None and grows and last.text[-1] not in _SCRIPTED:
                last.single = last.single and last.text[-1].isdigit() and character.isdigit()
                last.single = last.single or _number(last.text + character)
                last.text += character
            elif character == "." and not self._next().isdigit():
                self._add(".", "punct")
            else:
                self._add(character, "run")
        elif character == "," and self._between_digits():
            assert last is not None
            last.text += ","
        elif character in "+-*":
            self._add({"-": "−"}.get(character, character), "bin")
        elif character in "=<>≈≤≥≠→":
            self._add(character, "rel")
        elif character in "([":
            self._add(character, "open")
        elif character in ")]":
            self._add(character, "close")
        elif character in ",;":
            self._add(character, "punct")
        elif character == "/":
            self._add(character, "slash")
        elif character in "×·⋅":
            self._add(character, "bin")
        elif character == "&":
            self.spaced = True
        else:
            self._add(character)

    def _between_digits(self) -> bool:
        last = self.found[-1] if self.found else None
        after = self.stream[self.at : self.at + 3]
        return (
            last is not None
            and last.kind == "run"
            and last.text[-1].isdigit()
            and len(after) == 3
            and all(isinstance(c, str) and c.isdigit() for c in after)
        )

    def _script(self, sign: str) -> None:
        while self._next() == " ":
            self.at += 1
        if self.at == len(self.stream):
            self._add(sign)
            return
        item = self.stream[self.at]
        self.at += 1
        text = _joined(_Row([item]).atoms()).strip()
        table = _SUPERSCRIPTS if sign == "^" else _SUBSCRIPTS
        bare = text.replace(" ", "")
        # There is no subscript q: the projections look alike only if all are spelt out.
        projection = bare in ("k", "v", "o") and self.found and self.found[-1].text[-1:] == "W"
        if bare and all(c in table for c in bare) and not (projection and sign == "_"):
            self._attach("".join(table[c] for c in bare))
        elif bare in ("*", "′", "″", "†"):
            self._attach(bare)
        elif bare.isalnum() and (sign == "_" or len(bare) == 1):
            self._attach(sign + bare, spelt=True)
        elif text:
            self._attach(f"{sign}({bare if sign == '_' else text})")

    # Nodes

    def _node(self, node: Any) -> None:
        if node.isNodeType(_node("LatexGroupNode")):
            self._group(node.nodelist)
        elif node.isNodeType(_node("LatexMacroNode")):
            self._macro(node.macroname, _arguments(node))
        elif node.isNodeType(_node("LatexEnvironmentNode")):
            self._environment(node)
        elif node.isNodeType(_node("LatexSpecialsNode")):
            self.spaced = True  # ~ and &
            if node.specials_chars not in ("~", "&"):
                self.spaced = False
                self._add(_known(node))
        else:
            self._group(getattr(node, "nodelist", None) or [])

    def _group(self, nodes: Iterable[Any]) -> None:
        atoms = _Row(_flat(nodes)).atoms()
        if len(atoms) == 1:
            if atoms[0].kind in ("bin", "rel", "punct"):  # {=} is no relation, 65{,}536 a number
                atoms[0].kind = "ord"
            atoms[0].spaced = self.spaced
            self.found.append(atoms[0])
            self.spaced = False
        elif atoms:
            self._add(_joined(atoms), "group", single=False)

    def _environment(self, node: Any) -> None:
        rows: list[list[Any]] = [[]]
        for item in _flat(node.nodelist):
            if not isinstance(item, str) and getattr(item, "macroname", "") == "\\":
                rows.append([])
            else:
                cell = getattr(item, "specials_chars", "") == "&"
                rows[-1].append("," if cell or item == "&" else item)
        texts = [_joined(_Row(row).atoms()) for row in rows]
        self._add("[" + "; ".join(text for text in texts if text) + "]")

    def _macro(self, name: str, arguments: list[Any]) -> None:
        if name in _SIZES:
            if self.at < len(self.stream) and name in ("left", "right", "middle"):
                if self._next() == ".":
                    self.at += 1
                    return
                self._delimiter(name)
        elif name in _SPACES or name == "\\":
            self.spaced = True
        elif name in ("!", "notag", "nonumber", "label"):
            pass
        elif name in _FRACTIONS and len(arguments) == 2:
            over, under = (_row(a) for a in arguments)
            self._add(f"{_numerator(over)}/{_denominator(under)}", "fraction", single=False)
        elif name == "binom" and len(arguments) == 2:
            self._add(f"C({_joined(_row(arguments[0]))}, {_joined(_row(arguments[1]))})")
        elif name == "sqrt" and arguments:
            degree = _joined(_row(arguments[0])) if len(arguments) == 2 else ""
            root = "".join(_SUPERSCRIPTS.get(c, c) for c in degree) + "√"
            self._add(root + _denominator(_row(arguments[-1])))
        elif name in _WORDS and arguments:
            self._words(arguments[0])
        elif name == "operatorname" and arguments:
            self._add(_joined(_row(arguments[0])), "op")
        elif name in _ACCENTS and arguments:
            text = _joined(_row(arguments[0]))
            short = len(text) == 1
            self._add(text + _ACCENTS[name] if short else f"{name.removeprefix('wide')}({text})")
        elif name in _PLAIN and arguments:
            self._group([arguments[0]])
        elif name in ("mathbb", "mathcal", "mathfrak") and arguments:
            text = _joined(_row(arguments[0]))
            self._add("".join(_letterlike(name, c) for c in text))
        elif name in ("underbrace", "overbrace") and arguments:
            self._group([arguments[0]])
        else:
            self._symbol(name, arguments)

    def _delimiter(self, side: str) -> None:
        """What stands after \\left or \\right opens or closes, whatever it is."""
        item = self.stream[self.at]
        if isinstance(item, str) and item in "|()[]/":
            self.at += 1
            self._add(item, {"left": "open", "right": "close"}.get(side, "ord"))
        elif getattr(item, "macroname", "") in ("|", "Vert", "vert"):
            self.at += 1
            text = _SYMBOLS[item.macroname]
            self._add(text, {"left": "open", "right": "close"}.get(side, "ord"))

    def _words(self, argument: Any) -> None:
        """Upright text; its own spaces count."""
        text = "".join(
            c if isinstance(c, str) else _joined(_Row([c]).atoms()) for c in _flat(_inner(argument))
        )
        self.spaced = self.spaced or text[:1].isspace()
        self._add(text.strip(), "word")
        if text[-1:].isspace():
            self.spaced = True

    def _symbol(self, name: str, arguments: list[Any]) -> None:
        for table, kind in (
            (_OPERATORS, "op"),
            (_BINARY, "bin"),
            (_RELATIONS, "rel"),
            (_OPEN, "open"),
            (_CLOSE, "close"),
            (_SYMBOLS, "ord"),
        ):
            if name in table:
                self._add(table[name], kind)
                return
        sign = "" if name in _FRACTIONS else _sign(name)
        if sign:
            self._add(sign)
            return
        self._add(name, "word")  # unknown: its name says more than nothing
        for argument in arguments:
            self._add("(" + _joined(_row(argument)) + ")")


def _arguments(node: Any) -> list[Any]:
    parsed = getattr(node, "nodeargd", None)
    return [a for a in (parsed.argnlist if parsed and parsed.argnlist else []) if a is not None]


def _inner(argument: Any) -> list[Any]:
    return argument.nodelist if argument.isNodeType(_node("LatexGroupNode")) else [argument]


def _row(argument: Any) -> list[_Atom]:
    return _Row(_flat(_inner(argument))).atoms()


_SCRIPTED = {*_SUPERSCRIPTS.values(), *_SUBSCRIPTS.values()} - set("*′†")


def _number(text: str) -> bool:
    return text.replace(",", "").replace(".", "", 1).isdigit()


def _single(atom: _Atom) -> bool:
    """Whether an atom is one factor, so that nothing is misread when it stands beside a slash."""
    return atom.single and atom.kind in ("run", "ord", "word")


def _numerator(atoms: list[_Atom]) -> str:
    text = _joined(atoms)
    flat = all(a.kind in ("run", "ord", "word", "open", "close") for a in atoms)
    flat = (flat and " " not in text and "/" not in text) or _enclosed(atoms)
    return text if flat else f"({text})"


def _denominator(atoms: list[_Atom]) -> str:
    text = _joined(atoms)
    inner = atoms[1:] if atoms and atoms[0].text in ("∂", "∇", "Δ") else atoms
    alone = len(inner) == 1 and _single(inner[0])
    return text if alone or _enclosed(atoms) else f"({text})"


def _enclosed(atoms: list[_Atom]) -> bool:
    """Whether one pair of brackets or bars is around all of it."""
    depth, closed = 0, []
    for at, atom in enumerate(atoms):
        depth += (atom.kind == "open") - (atom.kind == "close")
        if depth == 0:
            closed.append(at)
    return closed[:1] == [len(atoms) - 1] and atoms[0].kind == "open"


def _joined(atoms: list[_Atom]) -> str:
    """The row with spaces as a typesetter sets them."""
    out = ""
    before: _Atom | None = None
    unary = False
    for at, atom in enumerate(atoms):
        after = atoms[at + 1] if at + 1 < len(atoms) else None
        text = atom.text
        if atom.kind == "fraction" and (_factor(before, left=True) or _factor(after, left=False)):
            text = f"({text})"
        if before is not None and not unary and _gap(before, atom, text):
            out += " "
        unary = atom.kind == "bin" and (
            before is None or before.kind in ("bin", "rel", "open", "punct", "op", "slash")
        )
        out += text
        before = atom
    return out


def _factor(atom: _Atom | None, *, left: bool) -> bool:
    """Whether a fraction beside this would be read as something else."""
    kinds = {"run", "ord", "word", "group", "fraction", "slash", "op"}
    return atom is not None and atom.kind in kinds | ({"close"} if left else {"open"})


def _gap(a: _Atom, b: _Atom, text: str) -> bool:
    """Whether a space goes between two atoms."""
    if "slash" in (a.kind, b.kind):
        return False
    if a.kind in ("bin", "rel") or b.kind in ("bin", "rel"):
        opens = a.kind == "open" or b.kind == "close" or b.kind == "punct"
        return not (opens and "rel" not in (a.kind, b.kind))
    if b.kind in ("close", "punct") or a.kind == "open":
        return False
    if a.kind == "punct":
        return a.text != "." or b.spaced
    if a.text in _DOTS or text in _DOTS:
        return True
    if b.kind == "open":
        return b.spaced and a.kind not in ("op",)
    if "op" in (a.kind, b.kind) or "fraction" in (a.kind, b.kind):
        return True
    if a.script or a.kind == "word" or b.kind == "word":
        return b.spaced or (a.text[-1].isalnum() and text[0].isalnum())
    return b.spaced


@cache
def _sign(name: str) -> str:
    """What pylatexenc shows for a macro without arguments, or nothing."""
    from pylatexenc.latex2text import LatexNodes2Text

    text: str = LatexNodes2Text().latex_to_text(f"\\{name}").strip()
    return text if len(text) <= 2 and "\\" not in text else ""


def _known(node: Any) -> str:
    from pylatexenc.latex2text import LatexNodes2Text

    return str(LatexNodes2Text().nodelist_to_text([node])).strip()


_NAMES = {"mathbb": "DOUBLE-STRUCK CAPITAL {}", "mathcal": "SCRIPT CAPITAL {}"}


def _letterlike(style: str, letter: str) -> str:
    """ℝ and ℒ, where terminals have them; otherwise the plain letter."""
    if not ("A" <= letter <= "Z"):
        return letter
    try:
        return unicodedata.lookup(_NAMES.get(style, "BLACK-LETTER CAPITAL {}").format(letter))
    except KeyError:
        return letter
