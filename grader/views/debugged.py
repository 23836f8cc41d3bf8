"""The page of `kata debug`."""

from typing import TYPE_CHECKING, Any

from grader.exam.verdict import Outcome
from grader.views.plain import paint, paragraphs

if TYPE_CHECKING:
    from grader.exam.debugging import Debugged  # which imports torch


def page(found: "Debugged", width: int, colour: bool) -> list[str]:
    """What came, what was expected, and how the check ended."""
    if found.check is None or found.check.outcome is Outcome.ERROR:
        trouble = found.trouble.message if found.trouble else "The check was not made."
        return [paint(line, "bold red", colour) for line in paragraphs(trouble, width)]
    import torch

    torch.set_printoptions(sci_mode=False, linewidth=width)  # type: ignore[no-untyped-call]
    lines: list[str] = []
    if found.want is not None:
        for word, value in (("came", found.got), ("expected", found.want)):
            lines += ["", paint(f"{word}:", "bold", colour), *_value(value)]
    if found.check.outcome is Outcome.PASSED:
        return [*lines, "", paint("✓ This check passes.", "bold green", colour)]
    if found.check.outcome is Outcome.SKIPPED:
        return [*lines, "", paint(f"– skipped: {found.check.message}", "dim", colour)]
    message = paragraphs(f"✗ {found.check.message}", width)
    return [*lines, "", *(paint(line, "red", colour) for line in message)]


def _value(value: Any) -> list[str]:
    shape = getattr(value, "shape", None)
    kind = "" if shape is None else f"  # {tuple(shape)} {str(value.dtype).removeprefix('torch.')}"
    first, *rest = str(value).splitlines()
    return [f"{first}{kind}" if not rest else first, *rest, *([kind.strip()] if rest else [])]
