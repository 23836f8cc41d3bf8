"""Files are read as Python reads them, whatever their encoding and line ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from grader.exam import source_text
from grader.exam.examiner import Examiner
from grader.exam.verdict import Kind

_TEXT = "x = 'é'\ny = 1\n"

FILES: dict[str, bytes] = {
    "utf-8": _TEXT.encode(),
    "utf-8 with a mark": _TEXT.encode("utf-8-sig"),
    "utf-8 declared": b"# -*- coding: utf-8 -*-\n" + _TEXT.encode(),
    "crlf": _TEXT.replace("\n", "\r\n").encode(),
    "cr": _TEXT.replace("\n", "\r").encode(),
    "mixed line ends": b"x=1\r\ny=2\nz=3\r",
    "no last newline": b"x = 1",
    "form feed": b"x=1\n\x0cy=2\n",
    "latin-1 declared": b"# coding: latin-1\n" + _TEXT.encode("latin-1"),
    "latin-1 declared, cr": b"# coding: latin-1\rx='\xe9'\r",
    "latin-1 in the second line": b"#!/usr/bin/python\n# coding: latin-1\nx='\xe9'\n",
    "latin-1 too late": b"\n\n# coding: latin-1\nx='\xe9'\n",
    "latin-1 undeclared": _TEXT.encode("latin-1"),
    "cp1252 for vim": b"# vim: set fileencoding=cp1252 :\nx='\x80'\n",
    "koi8-r": "# coding: koi8-r\nx='я'\n".encode("koi8-r"),
    "shift_jis": "# coding: shift_jis\nx='日本'\n".encode("shift_jis"),
    "gb18030": "# coding: gb18030\nx='日'\n".encode("gb18030"),
    "big5": "# coding: big5\nx='日'\n".encode("big5"),
    "euc-kr": "# coding: euc-kr\nx='가'\n".encode("euc-kr"),
    "mac-roman": b"# coding: mac-roman\nx='\x8e'\n",
    "utf-7": b"# coding: utf-7\nx='+AOk-'\n",
    "no utf-8, declared so": b"# coding: utf-8\nx='\xff'\n",
    "surrogates": b"x='\xed\xa0\x80'\n",
    "unknown coding": b"# coding: nonsense\nx=1\n",
    "no text coding": b"# coding: rot13\nk=1\n",
    "mark against declaration": b"\xef\xbb\xbf# coding: latin-1\nx=1\n",
    "utf-16": _TEXT.encode("utf-16"),
    "utf-16 without a mark": _TEXT.encode("utf-16-le"),
    "utf-32": _TEXT.encode("utf-32"),
    "null byte": b"x=1\0\n",
    "end of file sign": b"x=1\n\x1a",
    "tabs and spaces": b"if 1:\n\tx=1\n        y=2\n",
}


def _accepted(source: bytes) -> bool:
    if isinstance(source_text.decoded(source), source_text.Unreadable):
        return False
    try:
        compile(source, "file", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


@pytest.mark.parametrize("name", FILES)
def test_reads_what_python_reads(tmp_path: Path, name: str) -> None:
    """A file is accepted if and only if `python -m py_compile` accepts it."""
    file = tmp_path / "submission.py"
    file.write_bytes(FILES[name])
    done = subprocess.run([sys.executable, "-m", "py_compile", str(file)], capture_output=True)
    assert _accepted(FILES[name]) == (done.returncode == 0)


def test_comment_that_is_no_utf_8(tmp_path: Path) -> None:
    """Python refuses to run such a file, although some of its versions compile it."""
    file = tmp_path / "submission.py"
    file.write_bytes(b"x = 1\n# \xe9\n")
    assert subprocess.run([sys.executable, str(file)], capture_output=True).returncode == 1
    found = source_text.decoded(file.read_bytes())
    assert isinstance(found, source_text.Unreadable)
    assert "line 2" in found.message


PLAIN = {
    "latin-1 undeclared": "not UTF-8 text (line 1)",
    "latin-1 too late": "not UTF-8 text (line 4)",
    "utf-16": "UTF-16 text; save it as UTF-8",
    "utf-16 without a mark": "null bytes",
    "unknown coding": "coding line",
}


def test_what_is_wrong_is_said() -> None:
    """One plain sentence, with the line where there is one."""
    for name, text in PLAIN.items():
        found = source_text.decoded(FILES[name])
        assert isinstance(found, source_text.Unreadable)
        assert text in found.message
        assert "\n" not in found.message


def test_declared_encodings_reach_the_messages() -> None:
    """Lines shown of a file are decoded as the file says."""
    source = "# coding: latin-1\nraise ValueError('é')\n".encode("latin-1")
    with Examiner() as examiner:
        verdict = examiner.grade("lora_linear", source)
    assert verdict.error is not None
    assert verdict.error.kind is Kind.IMPORT
    assert "raise ValueError('é')" in verdict.error.message
