"""Zip and tar archives of strangers, read in memory and within limits: nothing of them is ever
written to disk, and no member's name is ever opened as a path."""

import bz2
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_OTHERS = (".rar", ".7z", ".gz", ".bz2", ".xz", ".zst", ".tzst", ".lzma", ".z", ".cab", ".dmg")
LIMIT_BYTES = 128 << 20  # of an archive, and of what a compressed tar unpacks to
NESTED_BYTES = 16 << 20  # of one inside another
MEMBERS = 20_000
_DIRECTORY_BYTES = 4 << 20  # of a zip's list of members
_XZ_MEMORY_BYTES = 64 << 20
_END = struct.Struct("<4s4H2LH")


class Unreadable(Exception):
    """The archive cannot be used; the message is one plain sentence without a subject."""


class Budget:
    """What may be read from one archive and those inside it, all together."""

    def __init__(self) -> None:
        self.members, self.bytes = MEMBERS, LIMIT_BYTES

    def member(self) -> None:
        self.members -= 1
        if self.members < 0:
            raise Unreadable(f"holds more than {MEMBERS:,} files")

    def take(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise Unreadable(f"holds more than {LIMIT_BYTES >> 20} MiB of submissions")


@dataclass(frozen=True)
class Member:
    """A file of an archive. path: the parts of its name. odd: why it is none to be read, if so;
    leads_out: because that name would lead out of the archive."""

    path: tuple[str, ...]
    leads_out: bool
    odd: str
    _read: Callable[[int], bytes]

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes, or one more if it is longer. Raises Unreadable."""
        try:
            return self._read(limit + 1)
        except Exception as error:  # whatever the decoders raise on bytes made to break them
            raise Unreadable("is damaged, or packed in a way that is not read here") from error


def is_archive(name: str) -> bool:
    return name.casefold().endswith(SUFFIXES)


def is_unread(name: str) -> bool:
    """Whether it is packed in a way that nobody here unpacks."""
    return name.casefold().endswith(_OTHERS) and not is_archive(name)


def stem(name: str) -> str:
    """The name without the suffix of an archive."""
    suffix = next((s for s in SUFFIXES if name.casefold().endswith(s)), "")
    return name[: len(name) - len(suffix)]


def members(file: IO[bytes], name: str, budget: Budget) -> Iterator[Member]:
    """The files in an archive, in its order. Raises Unreadable, perhaps after some."""
    try:
        yield from (_zip if name.casefold().endswith(".zip") else _tar)(file, budget)
    except Unreadable:
        raise
    except Exception as error:  # whatever the decoders raise on bytes made to break them
        raise Unreadable("is damaged, or no archive of that kind") from error


def _member(name: str, odd: str, read: Callable[[int], bytes]) -> Member:
    name = name.replace("\\", "/")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    leads_out = name.startswith("/") or ".." in parts or name[1:2] == ":"
    odd = "a name that leads out of it" if leads_out else odd
    return Member(parts, leads_out, odd, read)


def _zip(file: IO[bytes], budget: Budget) -> Iterator[Member]:
    _few(file)
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            budget.member()
            if info.is_dir():
                continue
            odd = ""
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind == stat.S_IFLNK:
                odd = "is a link"
            elif kind not in (0, stat.S_IFREG):
                odd = "is no plain file"
            elif info.flag_bits & 1:
                odd = "needs a password"
            elif info.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
                zipfile.ZIP_BZIP2,  # others may take as much memory as they say
            ):
                odd = "is packed in a way that is not read here"
            yield _member(info.filename, odd, _of_zip(archive, info))


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[int], bytes]:
    def read(limit: int) -> bytes:
        with archive.open(info) as member:
            return member.read(limit)

    return read


def _few(file: IO[bytes]) -> None:
    """Look at how long the list of members is before all of it is read into memory."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - (1 << 16) - _END.size - 20))
    tail = file.read()
    file.seek(0)
    at = len(tail) - _END.size
    if tail[at : at + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise Unreadable("is no zip archive")
    length = _END.unpack_from(tail, at)[5]
    if tail[max(0, at - 20) : at].startswith(b"PK\6\7") or length > _DIRECTORY_BYTES:
        raise Unreadable(f"holds more than {MEMBERS:,} files")


def _tar(file: IO[bytes], budget: Budget) -> Iterator[Member]:
    file = _plain(file)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (info := archive.next()) is not None:
            budget.member()
            if info.isdir():
                continue
            odd = ""
            if info.issym() or info.islnk():
                odd = "is a link"
            elif not info.isreg():
                odd = "is no plain file"
            yield _member(info.name, odd, _of_tar(archive, info))
        file.seek(archive.offset)
        if archive.offset > size or any(file.read(tarfile.BLOCKSIZE)):
            raise Unreadable("is damaged: it ends too early")  # of which tarfile says nothing


def _of_tar(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[int], bytes]:
    def read(limit: int) -> bytes:
        member = archive.extractfile(info)
        return b"" if member is None else member.read(limit)

    return read


def _plain(file: IO[bytes]) -> IO[bytes]:
    """The tar itself, unpacked in memory if it is compressed."""
    head = file.read(6)
    file.seek(0)
    start: Callable[[], Any]
    if head.startswith(b"\x1f\x8b"):
        start = lambda: zlib.decompressobj(31)  # noqa: E731
    elif head.startswith(b"BZh"):
        start = bz2.BZ2Decompressor
    elif head.startswith(b"\xfd7zXZ"):
        start = lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)  # noqa: E731
    else:
        return file
    data, out = file.read(), bytearray()
    while data:  # what was packed in pieces comes one stream after another
        stream = start()
        out += stream.decompress(data, LIMIT_BYTES + 1 - len(out))
        if len(out) > LIMIT_BYTES:
            raise Unreadable(f"unpacks to more than {LIMIT_BYTES >> 20} MiB")
        if not stream.eof:
            raise Unreadable("is damaged: it ends too early")
        data = stream.unused_data.lstrip(b"\0")
    return io.BytesIO(bytes(out))
