"""The bug hunt in a browser, beside `kata bug`: one real server for all tests of this file."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("latex2mathml")

from browsing import Served, Tab, sound, text_of  # noqa: E402
from html_page import HOSTILE, Page  # noqa: E402

from grader import catalog  # noqa: E402
from grader.practice import hunt  # noqa: E402
from grader.web import bundle  # noqa: E402

pytestmark = pytest.mark.slow

SCRIPTS = [address for address in (bundle.editor(), "/static/kata.js") if address]
POSTS = (
    *("save", "run", "stop", "compare", "take", "diagnose", "hint", "give-up", "judge"),
    "../../bugs",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("hunt")).running() as running:
        yield running


def planted(served: Served, slug: str) -> Tab:
    """A hunt on this kata, open in a tab."""
    answer = served.client.post("/bugs", data={"slug": slug})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/bugs/{slug}")
    return Tab(served, f"/bugs/{slug}")


def hidden(tab: Tab) -> dict[str, str]:
    """What its form says of itself."""
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', tab.html))


def press(tab: Tab, what: str, **given: str) -> str:
    """A button of the form, without script; the page after it."""
    data = {**hidden(tab), "text": tab.text, "base": tab.base, **given}
    answer = tab.served.client.post(f"{tab.at}/{what}", data=data)
    assert (answer.status_code, answer.headers["location"].partition("#")[0]) == (303, tab.at)
    return str(tab.served.client.get(tab.at).text)


def test_a_hunt(served: Served) -> None:
    """Planted, diagnosed before anything is graded, mended, judged; no message names the mistake.
    The terminal knows of each step."""
    slug = "ia3_linear"
    tab = planted(served, slug)
    (bug,) = [b for b in hunt.fair_bugs(slug) if hunt.planted(slug, b) == tab.text]
    assert bug.title not in text_of(tab.html)
    assert bug.symptom.replace("`", "") not in text_of(tab.html)
    assert tab.run(None) == (
        "trouble",
        {"text": "A diagnosis comes before the grading; nothing was graded.", "run": 1},
    )
    assert "Hint 1 of 2" in served.kata("bug", slug, "--hint")
    assert bug.symptom.replace("`", "") in text_of(served.client.get(tab.at).text)
    page = press(tab, "diagnose", diagnosis="the scale\n is wrong")
    assert "the scale is wrong" in page
    name, data = tab.run(None)
    assert (name, data["passed"]) == ("verdict", False)
    told = text_of(data["html"])
    assert "Still failing" in told
    assert bug.title not in told
    assert data["html"] in served.client.get(tab.at).text
    name, data = tab.run(hunt.reference(slug))
    assert (name, data["passed"]) == ("verdict", True)
    page = text_of(served.client.get(tab.at).text)
    assert " ".join(bug.cause.replace("`", "").split()) in page
    assert "Did your diagnosis name it?" in page
    answer = served.client.post(f"{tab.at}/judge", data={**hidden(tab), "right": "yes"})
    assert answer.status_code == 303
    assert re.search(r"rated \w+; the next hunt on it is due", served.client.get(tab.at).text)
    assert "No hunt is open" in served.kata("bug", slug, "--check")
    assert "1 bug hunt" in served.kata("stats")


def test_one_begun_in_a_terminal_goes_on(served: Served) -> None:
    """With its file, its hints and its diagnosis; given up here, it is over there."""
    slug = "bitfit"
    assert "One mistake" in served.kata("bug", slug, "--seed", "3")
    served.kata("bug", slug, "--hint")
    served.kata("bug", slug, "--diagnosis", "the biases")
    tab = Tab(served, f"/bugs/{slug}")
    assert tab.text == hunt.planted(slug, hunt.chosen_bug(slug, 3))
    assert "the biases" in text_of(tab.html)
    assert "Hint 2 of 2" in text_of(tab.html)
    assert f'href="/bugs/{slug}"' in served.client.get("/bugs").text
    page = text_of(press(tab, "give-up"))
    assert "Given up" in page
    assert hunt.chosen_bug(slug, 3).title.replace("`", "") in page
    assert "rated again" in page
    assert "No hunt is open" in served.kata("bug", slug, "--check")


def test_what_stands_in_the_editor_goes_along(served: Served) -> None:
    """With every button, so that no text is lost without script."""
    tab = planted(served, "galore")
    tab.text += "# mine\n"
    press(tab, "diagnose", diagnosis="something")
    tab = Tab(served, tab.at)
    assert tab.text.endswith("# mine\n")
    tab.text += "# more\n"
    assert "<ol>" in press(tab, "hint", rung="1")
    assert Tab(served, tab.at).text.endswith("# mine\n# more\n")


def test_a_form_that_comes_twice_counts_once(served: Served) -> None:
    tab = planted(served, "adalora")
    press(tab, "hint", rung="1")
    page = press(Tab(served, tab.at), "hint", rung="1")
    assert "Hint 2 of 2" in page
    for _ in range(2):
        press(Tab(served, tab.at), "diagnose", diagnosis="it")
    before = served.kata("stats", "--json")
    first = Tab(served, tab.at)
    press(first, "give-up")
    again = served.client.post(f"{tab.at}/give-up", data={**hidden(first), "text": "my text"})
    assert (again.status_code, "my text" in again.text) == (409, True)
    once = served.kata("stats", "--json")
    assert once != before
    planted(served, "adalora")
    answer = served.client.post(f"{tab.at}/judge", data={**hidden(first), "right": "yes"})
    assert answer.status_code == 303
    assert served.kata("stats", "--json") == once
    assert "Hint 1 of 2" in served.client.get(tab.at).text


def test_a_change_made_elsewhere_is_never_overwritten(served: Served) -> None:
    """Whichever gives way is kept beside the file."""
    tab = planted(served, "nf4_quantize")
    (path,) = (served.root / "home" / "hunts").glob("*/nf4_quantize.py")
    path.write_text("theirs = 1\n")
    assert tab.post("compare", text="mine = 2\n").status_code == 200
    refused = tab.save("mine = 2\n")
    assert (refused.status_code, path.read_text()) == (409, "theirs = 1\n")
    tab.base = refused.json()["base"]
    assert tab.save("mine = 2\n").status_code == 200
    path.write_text("theirs = 3\n")
    plain = served.client.post(
        f"{tab.at}/hint", data={**hidden(tab), "text": "mine = 4\n", "base": tab.base, "rung": "1"}
    )
    assert (plain.status_code, "mine = 4" in plain.text) == (409, True)
    assert tab.post("take", text="mine = 4\n").json()["text"] == "theirs = 3\n"
    kept = [file.read_text() for file in (path.parent / "kept").iterdir()]
    assert sorted(kept) == ["mine = 4\n", "theirs = 1\n", "theirs = 3\n"]
    assert served.history("nf4_quantize")["versions"] == []


def test_whatever_is_typed_is_text(served: Served) -> None:
    """A diagnosis and a file full of markup; pages are sound, with every field named."""
    tab = planted(served, "prompt_tuning")
    tab.text = f"# {HOSTILE.replace(chr(10), ' ')}\n"
    page = press(tab, "diagnose", diagnosis=HOSTILE)
    sound(Page(page), *SCRIPTS)
    assert "alert(1)" in Page(page).text
    tab = Tab(served, tab.at)
    name, data = tab.run(f"raise ValueError({HOSTILE!r})\n")
    assert name == "verdict"
    assert not Page(data["html"]).names & {"script", "img"}
    page = press(tab, "give-up", base=Tab(served, tab.at).base)
    sound(Page(page))
    assert "onerror=alert(1)" in Page(page).text
    sound(Page(served.client.get("/bugs").text))
    odd = served.client.post("/bugs", data={"slug": HOSTILE})
    assert odd.status_code == 404
    sound(Page(odd.text))


def test_another_site_changes_nothing(served: Served) -> None:
    tab = planted(served, "vera_linear")
    before = text_of(served.client.get("/bugs").text)
    with httpx.Client(base_url=served.origin, cookies=served.client.cookies) as client:
        for what in POSTS:
            data = {**hidden(tab), "text": "x", "base": tab.base, "diagnosis": "x", "rung": "1"}
            answer = client.post(
                f"{tab.at}/{what}", data=data, headers={"origin": "http://kata.example"}
            )
            assert answer.status_code == 403, what
    assert Tab(served, tab.at).text == tab.text
    assert text_of(served.client.get("/bugs").text) == before


def test_a_hunt_that_is_not_open(served: Served) -> None:
    """Nothing to look at but the way to plant one; no other kata's name leads anywhere."""
    page = served.client.get("/bugs/lora_linear")
    assert (page.status_code, "No hunt is open" in text_of(page.text)) == (200, True)
    sound(Page(page.text))
    assert served.client.get("/bugs/lora_linear/events?page=x").status_code == 404
    assert served.client.post("/bugs/lora_linear/save", json={"text": "x"}).status_code == 404
    assert served.client.get("/bugs/nothing").status_code == 404
    assert not Path(served.root / "home" / "hunts" / "lora_linear.py").exists()


def test_an_old_bug_is_gone_from_the_list(served: Served) -> None:
    """As in the terminal, a hunt whose bug has left the catalogue is none."""
    slug = "lora_router"
    planted(served, slug)
    code = (
        "import json; from grader.store import Store\n"
        "with Store.open(create=True) as store:\n"
        f"    found = json.loads(store.settings.get('hunt:{slug}'))\n"
        f"    store.settings.set('hunt:{slug}', json.dumps({{**found, 'bug_id': 'gone'}}))\n"
    )
    subprocess.run([sys.executable, "-c", code], env=served.environment, check=True)
    assert f'href="/bugs/{slug}"' not in served.client.get("/bugs").text
    assert "No hunt is open" in text_of(served.client.get(f"/bugs/{slug}").text)
    assert catalog.entry(slug).bugs
