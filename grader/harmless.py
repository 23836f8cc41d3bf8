"""Text from a learner's program, made safe to print on a terminal."""

import re

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")


def harmless(text: str) -> str:
    """The text without terminal escapes; other control characters become visible."""
    text = _ESCAPE.sub("", text.replace("\r\n", "\n"))
    return "".join(c if c in "\n\t" or c.isprintable() else _visible(c) for c in text)


def _visible(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else "\ufffd"
