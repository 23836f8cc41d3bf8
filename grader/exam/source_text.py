"""A file's bytes as the text that Python would read."""

import io
import tokenize
from dataclasses import dataclass

_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"%PDF": "a PDF",
}
_WIDE = {b"\xff\xfe\x00\x00": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True)
class Unreadable:
    """One plain sentence on why the bytes are no Python source."""

    message: str


def decoded(source: bytes) -> str | Unreadable:
    """The text, by its byte order mark or coding line, else UTF-8; line ends become \\n."""
    for start, what in _ARCHIVES.items():
        if source.startswith(start):
            return Unreadable(f"The file is {what}, not Python source.")
    for start, what in _WIDE.items():
        if source.startswith(start):
            return Unreadable(f"The file is {what} text; save it as UTF-8.")
    if source.lstrip()[:1] == b"{" and b'"cells"' in source:
        return Unreadable("The file is a Jupyter notebook; save its code as a .py file.")
    if b"\0" in source:
        return Unreadable("The file holds null bytes: a binary file, or UTF-16 text?")
    source = source.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        return source.decode(encoding)
    except (SyntaxError, LookupError) as error:
        wrong = _wrong_line(source)
        return Unreadable(wrong or f"The file's coding line cannot be followed: {error}.")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        return Unreadable(_wrong_line(source) or f"The file is not {encoding} text (line {line}).")


def _wrong_line(source: bytes) -> str | None:
    """Where a file that names no encoding, and so has to be UTF-8, is not."""
    head = b"".join(source.splitlines(keepends=True)[:2])
    if b"coding" in head:
        return None
    try:
        source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        return f"The file is not UTF-8 text (line {line}); a coding line would name another."
    return None
