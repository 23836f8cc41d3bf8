"""The learner's file beside an editor in a page: the file is the truth, and no byte gets lost.

A page holds the text with plain line ends, and the digest of the bytes that it came from. A save
says which bytes it goes out from: where others are there now, nothing is written. Line ends and a
byte order mark stay as they are in the file.
"""

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from grader.errors import UsageFault
from grader.exam.submission import LIMIT_BYTES
from grader.practice import clock, files, stubs, work
from grader.practice.workspace import Workspace
from grader.store import Store
from grader.store.attempts import Reason

KEPT = "kept"  # the folder beside a file of which the store keeps no versions
_MARK = b"\xef\xbb\xbf"
_END = re.compile(r"\r\n|\r|\n")
_COMPARABLE_LINES = 5000  # a longer file of mixed line ends gets the commonest of them


@dataclass(frozen=True)
class Opened:
    """A file as a page shows it. `base` names its bytes, "" where there is no file; `trouble` says
    why it can only be read, "" where it can be changed."""

    text: str
    base: str
    trouble: str = ""


class Changed(Exception):
    """The file on the disk is another than the one that was edited; `there` is that one."""

    def __init__(self, there: Opened) -> None:
        super().__init__("The file was changed meanwhile.")
        self.there = there


def opened(path: Path) -> Opened:
    """The file as it is now."""
    try:
        return _shown(files.read(path))
    except UsageFault as fault:
        return Opened("", "unreadable", str(fault))


def base(path: Path) -> str:
    """What `opened` would name its bytes."""
    try:
        return _digest(files.read(path))
    except UsageFault:
        return "unreadable"


def save(space: Workspace, slug: str, text: str, out_from: str) -> str:
    """Put the text into the kata's file, unless that is another than `out_from`; its new base.

    What was there is kept as a version, and so is what is saved. Raises Changed, UsageFault or
    StoreError, and has changed nothing then.
    """
    path, now = space.path(slug), clock.now()
    blank = stubs.stub(slug).encode()
    with Store.open(create=True) as store:

        def keep(found: bytes) -> None:
            if found != blank:
                store.attempts.keep(slug, found, Reason.WEB, now)

        there, source = put(path, text, out_from, keep)
        if source != there:
            with store.transaction():
                keep(source)
                lines = work.new_lines(there or b"", source)
                work.on_kata(store, slug, now, saved=now, lines=lines)
    return _digest(source)


def put(
    path: Path, text: str, out_from: str, keep: Callable[[bytes], None]
) -> tuple[bytes | None, bytes]:
    """Put the text into the file at `path`, unless that is another than `out_from`: the bytes that
    were there, which `keep` gets first, and those that are. The same ones are not written.

    Raises Changed or UsageFault, and has changed nothing then.
    """
    there = files.read(path)
    if there is not None and _digest(there) != out_from:
        raise Changed(_shown(there))
    source = _bytes(text, there)

    def kept(found: bytes) -> None:
        if _digest(found) != out_from:  # it was saved elsewhere a moment ago
            raise Changed(_shown(found))
        keep(found)

    if source != there:
        files.replace(path, source, kept)
    return there, source


def put_beside(path: Path, text: str, out_from: str) -> str:
    """As `save`, of a file in a folder of its own, of which the store keeps nothing."""
    _, source = put(path, text, out_from, lambda _: None)
    return _digest(source)


def keep_beside(path: Path, text: str | None) -> None:
    """Keep a text that gives way, or the file itself where it is None, in a folder beside the file.
    Raises UsageFault."""
    there = files.read(path)
    source = there if text is None else _bytes(text, there)
    if source is None:
        return
    folder = path.parent / KEPT
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageFault(f"{folder} cannot be made: {error.strerror}.") from error
    files.create(folder / f"{path.stem}_{_digest(source)[:8]}.py", source)


def keep(slug: str, text: str, path: Path) -> None:
    """Keep what stands in a page as a version, before it gives way to the file."""
    with Store.open(create=True) as store:
        source = _bytes(text, files.read(path))
        store.attempts.keep(slug, source, Reason.WEB, clock.now())


def difference(old: str, new: str, names: tuple[str, str]) -> list[tuple[str, str]]:
    """What leads from one text to the other, as lines, each with what it is: "add", "take", "at"
    (the place), "head", or "" for what both have. Nothing where they are the same."""
    kinds = {"+": "add", "-": "take", "@": "at"}
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="", n=4))
    head = [("head", line) for line in lines[:2]]
    return head + [(kinds.get(line[:1], ""), line) for line in lines[2:]]


def decoded(source: bytes) -> str:
    """A kept version as text, whatever its bytes."""
    return _END.sub("\n", source.removeprefix(_MARK).decode(errors="replace"))


def _shown(source: bytes | None) -> Opened:
    if source is None:
        return Opened("", "")
    trouble = ""
    try:
        source.decode()
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        trouble = (
            f"It is no UTF-8: byte 0x{source[error.start]:02x} in line {line}. "
            "Save it as UTF-8 in your editor to change it here."
        )
    if b"\0" in source:
        trouble = "It holds a zero byte, which no page can show. Mend that in your editor."
    elif len(source) > LIMIT_BYTES:
        trouble = "It is larger than 1 MiB; no answer is that long."
    return Opened("" if len(source) > LIMIT_BYTES else decoded(source), _digest(source), trouble)


def _digest(source: bytes | None) -> str:
    return "" if source is None else hashlib.sha256(source).hexdigest()


def _bytes(text: str, there: bytes | None) -> bytes:
    """The text with the line ends and the mark of the file that is there."""
    lines = _END.split(text)
    mark, ends = b"", ["\n"] * len(lines)
    if there is not None:
        old = there.removeprefix(_MARK).decode(errors="replace")
        mark = _MARK if there.startswith(_MARK) else b""
        ends = _ends(_END.split(old), _END.findall(old), lines)
    whole = "".join(line + end for line, end in zip(lines, ends)).removesuffix(ends[-1])
    try:
        source = mark + whole.encode()
    except UnicodeEncodeError:
        raise UsageFault("The text holds half a character, which no file can keep.") from None
    if len(source) > LIMIT_BYTES:
        raise UsageFault("The text is larger than 1 MiB; no answer is that long.")
    return source


def _ends(old: list[str], ends: list[str], new: list[str]) -> list[str]:
    """A line end for each new line: that of the same line before, or the commonest."""
    common = Counter(ends).most_common(1)[0][0] if ends else "\n"
    found = [common] * len(new)
    if len(set(ends)) > 1 and max(len(old), len(new)) <= _COMPARABLE_LINES:
        for at, to, size in difflib.SequenceMatcher(None, old, new, False).get_matching_blocks():
            for step in range(size):
                if at + step < len(ends):
                    found[to + step] = ends[at + step]
    return found
