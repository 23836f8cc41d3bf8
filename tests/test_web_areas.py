"""The bar above each page says where one is."""

import re
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from browsing import Inside


def test_the_bar_marks_the_area_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KATA_HOME", str(tmp_path / "home"))
    browser = Inside(tmp_path)
    found = {}
    for address in ("/", "/katas", "/katas/bitfit/history", "/quiz", "/bugs", "/mock", "/plan"):
        bar = re.search(r"<nav.*?</nav>", browser.get(address).text, re.DOTALL)
        assert bar is not None
        found[address] = re.findall(r'<a href="([^"]*)" aria-current="true">', bar[0])
    assert found.pop("/katas/bitfit/history") == ["/katas"]
    assert found == {address: [address] for address in found}
    assert "aria-current" not in browser.get("/nothing").text
