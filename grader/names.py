"""Names as they are typed: which one is meant, and which come near."""

from collections.abc import Sequence


def meant(text: str, known: Sequence[str], joint: str) -> tuple[str | None, list[str]]:
    """The one of `known` that is meant, itself or the only one that begins with `text`, or else
    None and the nearest. `joint` is what joins the words of these names, `-` or `_`; the other
    may be typed for it, and capitals."""
    wanted = text.strip().lower().replace("_" if joint == "-" else "-", joint)
    starting = [name for name in known if wanted and name.startswith(wanted)]
    if wanted in known or len(starting) == 1:
        return (wanted if wanted in known else starting[0]), []
    return None, starting[:3] or near(wanted, known)


def near(text: str, known: Sequence[str]) -> list[str]:
    """The nearest ones, the best first."""
    import difflib  # for the wrong names alone

    return difflib.get_close_matches(text, known, 3, 0.5)
