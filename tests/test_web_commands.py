"""Where texts that name commands lead in a browser."""

from pathlib import Path

import pytest

pytest.importorskip("starlette")

from browsing import Inside

from grader.web.commands import linked, page


@pytest.mark.parametrize(
    ("command", "address"),
    [
        ("kata quiz", "/quiz"),
        ("kata quiz --ask lora-init-symptoms", "/quiz?ask=lora-init-symptoms"),
        ("kata start lora_linear", "/katas/lora_linear"),
        ("kata start SLUG", "/katas"),
        ("kata history galore", "/katas/galore/history"),
        ("kata bug ia3_linear", "/bugs/ia3_linear"),
        ("kata bug --random", "/bugs"),
        ("kata mock --level senior", "/mock"),
        ("kata mock --minutes 30", "/mock?minutes=30"),
        ("kata mock --report 3", "/mock/3/report"),
        ("kata today", "/"),
        ("kata plan --clear", None),
        ("kata quiz --ask ../x", None),
        ("kata doctor", None),
        ("quiz", None),
    ],
)
def test_a_command_leads_to_the_page_that_does_the_same(command: str, address: str | None) -> None:
    assert page(command) == address


def test_words_are_text_with_links_at_their_commands() -> None:
    assert linked("Next: 2 more today, `kata quiz`.") == (
        'Next: 2 more today, <a href="/quiz"><code>kata quiz</code></a>.'
    )
    assert linked('`x` <b> `kata start "><i>` `kata doctor`') == (
        "<code>x</code> &lt;b&gt; <code>kata start &#34;&gt;&lt;i&gt;</code>"
        " <code>kata doctor</code>"
    )
    assert linked("half of `kata quiz") == "half of `kata quiz"


def test_trouble_leads_to_where_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KATA_HOME", str(tmp_path / "home"))
    browser = Inside(tmp_path)
    browser.post("/katas/galore/save", data={"text": "x = 1\n", "base": ""})
    answer = browser.post("/katas/galore/history/9/restore")
    assert answer.status_code == 409
    assert 'galore has no version 9: <a href="/katas/galore/history"><code>' in answer.text
    assert '<a href="/katas/galore">Back to where you were</a>' in answer.text
    form = {"content-type": "application/x-www-form-urlencoded"}
    refused = browser.post("/quiz/number", content="a&" * 2000, headers=form)
    assert '<a href="/quiz">Back to' in refused.text
    assert "Back to" not in browser.get("/katas/nothing").text + browser.post("/nothing").text


def test_what_is_quoted_is_set_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KATA_HOME", str(tmp_path / "home"))
    answer = Inside(tmp_path).post("/plan", data={"interview": "<b>", "minutes": "40"})
    assert "<code>&lt;b&gt;</code> is no date." in answer.text
