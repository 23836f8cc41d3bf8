"""`kata web`: the practice in a browser, one real server for all tests of this file."""

import asyncio
import contextlib
import html
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from browsing import (  # noqa: E402
    PATIENCE_S,
    SLUG,
    Served,
    all_below,
    gone,
    sound,
    text_of,
    until,
)
from html_page import HOSTILE, Page  # noqa: E402

from grader import catalog, content  # noqa: E402
from grader.practice import stubs  # noqa: E402
from grader.recall import bank  # noqa: E402
from grader.views import mathml  # noqa: E402
from grader.web import bundle  # noqa: E402
from grader.web.guard import LIMIT_BYTES, Guard  # noqa: E402
from grader.web.pages import style  # noqa: E402

pytestmark = pytest.mark.slow

LINE = "        return self.base(x) * self.scale"
RIGHT = content.solution(SLUG).read_text()
WRONG = RIGHT.replace(LINE, LINE.replace("*", "+"))
SLEEPS = RIGHT.replace(LINE, f"        import time\n        time.sleep(1000)\n{LINE}")
PAGES = (
    "/",
    "/katas",
    "/katas?track=core",
    f"/katas/{SLUG}",
    f"/katas/{SLUG}/history",
    f"/katas/{SLUG}/solution",
    "/quiz",
    "/quiz?ask=lora-merge-latency",
    "/plan",
    "/stats",
)
POSTS = ("save", "run", "stop", "compare", "take", "start", "reset", "hint", "solution")


# Who is let in


def test_nobody_is_let_in_without_the_cookie(served: Served) -> None:
    """No page, no script, no stream, no way to ask for one that is not there."""
    for path in (*PAGES, "/katas/bitfit/events?page=x", "/static/kata.js", "/nothing"):
        answer = httpx.get(served.origin + path)
        assert (answer.status_code, "kata-" in str(answer.headers)) == (403, False), path
    port = f"kata-{served.port}"
    for value in ("", "x", "é", served.address.rpartition("=")[2]):
        headers = {"cookie": f"{port}={value}".encode()}
        assert httpx.get(served.origin + "/", headers=headers).status_code == 403


@pytest.mark.parametrize("query", ["", "?token=", "?token=x", "?token=é", "?other=1"])
def test_a_missing_or_wrong_token_gets_no_cookie(served: Served, query: str) -> None:
    answer = httpx.get(f"{served.origin}/enter{query}")
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


def test_the_token_becomes_a_cookie_that_no_other_site_sends(served: Served) -> None:
    """By a page of its own and no redirect, which a Strict cookie would be left out of."""
    answer = httpx.get(served.address)
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 200
    assert cookie.startswith(f"kata-{served.port}=")
    assert served.address.rpartition("=")[2] not in cookie
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert 'http-equiv="refresh"' in answer.text


@pytest.mark.parametrize(
    "other",
    ['sort={"by": 1}', "plain", "a@b=1", 'half="', "a=é", "=1", "kata-PORT=x"],
)
def test_what_else_is_served_on_this_machine_locks_nobody_out(served: Served, other: str) -> None:
    """Its cookies come as well, since they know no ports, before ours or after."""
    name = f"kata-{served.port}"
    ours, other = f"{name}={served.client.cookies[name]}", other.replace("PORT", str(served.port))
    for both in (f"{other}; {ours}", f"{ours}; {other}"):
        answer = httpx.get(f"{served.origin}/", headers={"cookie": both.encode()})
        assert answer.status_code == 200, both
    assert httpx.get(f"{served.origin}/", headers={"cookie": other.encode()}).status_code == 403


def test_a_token_that_others_may_see_lets_in_once() -> None:
    """The one in the command line of the browser that is opened."""
    guard = Guard(lambda *_: None, 80, "printed")  # type: ignore[arg-type]
    token = guard.once()

    async def enter(value: str) -> int:
        transport = httpx.ASGITransport(app=guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            headers = {"host": "127.0.0.1:80"}
            return int((await client.get(f"/enter?token={value}", headers=headers)).status_code)

    codes = [asyncio.run(enter(v)) for v in (token, token, "printed", "printed")]
    assert codes == [200, 403, 200, 200]


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost:{}",
            "kata.example",
            "kata.example:{}",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]:{}",
        ),
        *("127.0.0.1:{}.kata.example", "0.0.0.0:{}", "127.1:{}", "127.0.0.1:{}@kata.example", ""),
    ],
)
def test_a_name_that_was_pointed_at_this_machine_is_none_of_ours(served: Served, host: str) -> None:
    """DNS rebinding: the browser would send the other site's cookies and read the answer."""
    headers = {"host": host.format(served.port)}
    assert served.client.get("/", headers=headers).status_code in (400, 403)
    assert served.client.get(served.address, headers=headers).status_code in (400, 403)


def test_two_hosts_are_none(served: Served) -> None:
    cookie = f"kata-{served.port}={served.client.cookies[f'kata-{served.port}']}"
    for hosts in ((f"127.0.0.1:{served.port}",), (f"127.0.0.1:{served.port}", "kata.example")):
        connection = http.client.HTTPConnection("127.0.0.1", served.port)
        connection.putrequest("GET", "/", skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        connection.putheader("Cookie", cookie)
        connection.endheaders()
        status = connection.getresponse().status
        connection.close()
        assert status == 200 if len(hosts) == 1 else status in (400, 403)


@pytest.mark.parametrize(
    "origin",
    [
        *(None, "null", "http://kata.example", "http://127.0.0.1", "https://127.0.0.1:{}"),
        *("http://localhost:{}", "http://127.0.0.1:{}.kata.example"),
    ],
)
def test_another_site_changes_nothing(served: Served, origin: str | None) -> None:
    """Whatever it posts, with the cookie and without: no file, no version, no attempt."""
    path = served.path("bitfit")
    path.write_text("mine = 1\n")
    headers = {} if origin is None else {"origin": origin.format(served.port)}
    with httpx.Client(base_url=served.origin, cookies=served.client.cookies) as client:
        for what in (*POSTS, "history/1/restore"):
            for body in ({"json": {"text": "x"}}, {"data": {"text": "x"}}):
                answer = client.post(f"/katas/bitfit/{what}", headers=headers, **body)
                assert answer.status_code == 403, what
    assert path.read_text() == "mine = 1\n"
    assert served.history("bitfit")["versions"] == []


def test_another_site_reads_nothing(served: Served) -> None:
    for site in ("cross-site", "same-site"):
        headers = {"sec-fetch-site": site}
        assert served.client.get("/", headers=headers).status_code == 403
    answer = served.client.get("/", headers={"origin": "http://kata.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_pages_run_and_load_what_is_ours_alone(served: Served) -> None:
    """Well-formed, no script or style in the page, our files of script on the page of a kata alone;
    each has a heading, landmarks, and a name for every field and button."""
    for path in PAGES:
        answer = served.client.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        ours = [address for address in (bundle.editor(), "/static/kata.js") if address]
        sound(Page(answer.text), *(ours if path == f"/katas/{SLUG}" else []))
        assert not re.search(r'(src|href|action)="(?!/|#)', answer.text)


def test_what_was_built_is_asked_for_once_and_only_if_it_is_there(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser keeps it: other content has another address."""
    sheet = served.client.get("/static/kata.css").text
    addresses = re.findall(r'url\("([^"]*)"\)', sheet)
    assert len(addresses) == len(bundle.files()) // 2
    for address in filter(None, (*addresses, bundle.editor())):
        answer = served.client.get(address)
        assert (answer.status_code, answer.headers["cache-control"][:8]) == (200, "private,")
    monkeypatch.setattr(bundle, "files", dict)
    assert "url(" not in style().decode()
    assert bundle.editor() is None
    monkeypatch.setattr(bundle, "files", lambda: {"editor.js": b"x", "stix-two-math.woff2": b"y"})
    assert 'url("/static/stix-two-math.woff2?v=' in style().decode()
    assert str(bundle.editor()).startswith("/static/editor.js?v=")


def test_it_listens_on_this_machine_alone(served: Served) -> None:
    listening = []
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            rows = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            places = (row.split()[1] for row in rows if row.split()[3] == "0A")
            listening += [p for p in places if int(p.rpartition(":")[2], 16) == served.port]
    assert listening == [f"0100007F:{served.port:04X}"]


@pytest.mark.parametrize(
    "path",
    [
        *("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/web.css"),
        *("/static/%2fetc%2fpasswd", "/katas/..%2f..%2fetc%2fpasswd", "/katas/%2e%2e", "/katas/é"),
        *("/katas/bitfit%00", "/katas/bitfit.py", "/katas/bitfit/history/0"),
        *("/katas/bitfit/history/-1", "/katas/..%2fx/events?page=1", "/katas/bitfit/events"),
        f"/katas/bitfit/events?page={'x' * 65}",
        *(f"/katas/bitfit/history/{'9' * 5000}", f"/mock/{'9' * 5000}"),
    ],
)
def test_a_path_leads_to_what_is_meant_alone(served: Served, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)  # httpx would tidy it up
    cookie = f"kata-{served.port}={served.client.cookies[f'kata-{served.port}']}"
    connection.request("GET", path.replace("é", "%C3%A9"), headers={"Cookie": cookie})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 404
    assert "root:" not in text
    assert "import " not in text


def test_bodies_of_100_mb_are_turned_away(served: Served) -> None:
    """One that says its length before it is read, one that does not when it has gone too far."""
    assert LIMIT_BYTES < 100 << 20
    before = _memory(served.process.pid)
    cookie = f"kata-{served.port}={served.client.cookies[f'kata-{served.port}']}"
    head = (
        f"POST /katas/bitfit/save HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
        f"Origin: {served.origin}\r\nCookie: {cookie}\r\nContent-Type: application/json\r\n"
    )
    for kind in ("Content-Length: 104857600", "Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) as sock:
            sock.sendall(f"{head}{kind}\r\n\r\n".encode())
            if "chunked" in kind:
                chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
                with contextlib.suppress(OSError):  # it hangs up
                    for _ in range(100):
                        sock.sendall(chunk)
            answer = b""
            with contextlib.suppress(OSError):
                answer = sock.recv(1 << 12)
        assert answer == b"" if "chunked" in kind and not answer else b" 413 " in answer
    assert _memory(served.process.pid) - before < 60 << 10
    assert served.client.get("/").status_code == 200
    deep = b"[" * 100_000
    headers = {"content-type": "application/json"}
    for body in (deep, b"\xff", b"{}x", b'{"text": 1}', b"null"):
        refused = served.client.post("/katas/bitfit/save", content=body, headers=headers)
        assert refused.status_code == 400, body[:9]
    big = {"text": "#" * LIMIT_BYTES}
    assert served.client.post("/katas/bitfit/save", data=big).status_code == 413
    long = served.tab("bitfit").save("#" * ((1 << 20) + 1))
    assert (long.status_code, long.json()["error"]) == (
        409,
        "The text is larger than 1 MiB; no answer is that long.",
    )


def _memory(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def test_200_event_streams_leave_the_server_at_work(served: Served) -> None:
    """The oldest are told to hang up; pages come as ever, and the newest tab is served."""
    socks = []
    cookie = f"kata-{served.port}={served.client.cookies[f'kata-{served.port}']}"
    try:
        for number in range(200):
            sock = socket.create_connection(("127.0.0.1", served.port), PATIENCE_S)
            socks.append(sock)
            sock.sendall(
                f"GET /katas/bitfit/events?page=many-{number} HTTP/1.1\r\n"
                f"Host: 127.0.0.1:{served.port}\r\nCookie: {cookie}\r\n\r\n".encode()
            )
            assert b" 200 " in sock.recv(1 << 12)
        assert served.client.get("/").status_code == 200
        told = b""
        while b"event: bye" not in told:
            told += socks[0].recv(1 << 12)
        with served.tab("bitfit").events() as events:
            assert next(events)[0] == "file"
    finally:
        for sock in socks:
            sock.close()


# What is shown is text


def test_what_a_learner_types_prints_and_names_is_text(served: Served) -> None:
    """In the file, its output, its errors, the folder's name, the address."""
    noise = "</textarea></pre><script>alert(1)</script>"
    loud = RIGHT.replace(LINE, f"        print({noise!r})\n        raise ValueError({noise!r})")
    tab = served.tab()
    name, data = tab.run(f"print({noise!r})\n{loud}")
    assert name == "verdict"
    again = served.tab()
    assert again.text.startswith(f"print({noise!r})")
    pages = [data["html"], again.html]
    pages += [served.client.get(f"/katas/{SLUG}/history/1").text]
    pages += [served.client.post(f"/katas/{SLUG}/solution", follow_redirects=True).text]
    pages += [served.client.get("/katas/%3Cscript%3Ealert(1)%3C%2Fscript%3E").text]
    pages += [served.client.get("/katas?track=%3Cscript%3Ealert(1)").text]
    conflict = tab.post("save", text=noise, base="other")
    pages += [conflict.json()["html"]]
    plain = served.client.post(f"/katas/{SLUG}/save", data={"text": noise, "base": "other"})
    assert (conflict.status_code, plain.status_code) == (409, 409)
    for text in [*pages, plain.text]:
        assert not re.search(r"<script(?! src=\"/static/)", text)
        assert "<i>" not in text
    assert pages[0].count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2
    assert "It printed while it was loaded" in data["html"]
    served.path().write_text(stubs.stub(SLUG))


def test_questions_are_text_and_formulas() -> None:
    """Every formula of the bank can be set; markup in one is text."""
    for question in bank.load():
        texts = [question.prompt, question.answer, *question.points]
        texts += [text for asked in question.followups for text in (asked.prompt, asked.answer)]
        for text in texts:
            shown = str(mathml.markdown(text))
            assert shown.count("<math") == shown.count("</math>")
            assert "<code>\\" not in shown, question.id
            assert "style=" not in shown
            assert "<script" not in shown
    shown = str(mathml.markdown(f"{HOSTILE} ${HOSTILE}$ $<b>$ $$\\text{{<i>}}$$ [x](javascript:a)"))
    assert not re.search(r"<(script|img|b|i|style|title)\b|javascript:a\"", shown)
    assert "<math" in shown


# Practice


def test_a_kata_from_wrong_to_right(served: Served) -> None:
    """The named mistake first; the attempts are those of `kata history`, the kata is the current
    one, its record that of `kata list`; the task is what `kata show` tells."""
    served.kata("start", SLUG)
    tab = served.tab()
    assert tab.text == stubs.stub(SLUG)
    before = len(served.history()["attempts"])
    name, data = tab.run(WRONG)
    assert (name, data["passed"]) == ("verdict", False)
    words = text_of(data["html"])
    assert words.index("The scale is added, not multiplied") < words.index("Core")
    bug = next(b for b in catalog.entry(SLUG).bugs if "added" in b.title)
    assert words.index(" ".join(bug.cause.split())) < words.index("forward")
    assert f'href="/quiz?ask={bug.question}"' in data["html"]
    assert served.path().read_text() == WRONG
    assert "The scale is added" in text_of(served.tab().html)
    name, data = tab.run(RIGHT)
    assert (name, data["passed"]) == ("verdict", True)
    assert "✓ passed, complete" in text_of(data["html"])
    assert re.search(r'Asked about it: <a href="/quiz\?ask=[\w-]+">', data["html"])
    assert f"attempt {before + 2}" in text_of(data["html"])
    kept = served.history()
    attempts = kept["attempts"][before:]
    assert [attempt["passed"] for attempt in attempts] == [False, True]
    reasons = {v["number"]: v["reason"] for v in kept["versions"]}
    assert [reasons[attempt["version"]] for attempt in attempts] == ["web", "web"]
    assert re.search(rf"✓ +8 +{SLUG} +passed", served.kata("list"))
    assert "✓ passed" in text_of(served.client.get("/katas").text)
    assert served.kata("run").splitlines()[0].startswith(f"{SLUG} ")
    assert len(served.history()["attempts"]) == before + 3
    asked = text_of(served.client.get(f"/katas/{SLUG}").text)
    for rule in ("Inputs need not be contiguous.", "A base without bias works."):
        assert rule in asked
    stats = text_of(served.client.get("/stats").text)
    assert f"{SLUG} passed" in stats
    assert "Days" in stats


def test_without_script(served: Served) -> None:
    """Forms do it all: run, hint, reset, restore; line ends of forms are not the file's."""
    slug, client = "bitfit", served.client
    served.kata("start", slug)
    right = content.solution(slug).read_text()
    form = {"text": right.replace("\n", "\r\n"), "base": served.tab(slug).base}
    answer = client.post(f"/katas/{slug}/run", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/katas/{slug}#verdict")
    assert served.path(slug).read_bytes() == right.encode()
    assert "passed, complete" in text_of(served.tab(slug).html)
    for _ in range(2):  # clicked twice
        assert client.post(f"/katas/{slug}/hint", data={"rung": "1"}).status_code == 303
    hint = catalog.entry(slug).hints[0]
    assert " ".join(hint.replace("`", "").split()) in text_of(served.tab(slug).html)
    assert "Hint 2 of" in served.kata("hint", slug)
    assert catalog.entry(slug).hints[1][:30].replace("`", "") in text_of(served.tab(slug).html)
    assert client.post(f"/katas/{slug}/reset").status_code == 303
    assert served.path(slug).read_text() == stubs.stub(slug)
    assert "Hint 1 of" in text_of(served.tab(slug).html)
    last = served.history(slug)["versions"][-1]["number"]
    page = client.get(f"/katas/{slug}/history")
    assert f"/katas/{slug}/history/{last}/restore" in page.text
    shown = client.get(f"/katas/{slug}/history/{last}").text
    assert "+    raise NotImplementedError" in html.unescape(shown)
    assert client.post(f"/katas/{slug}/history/{last}/restore").status_code == 303
    assert served.path(slug).read_text() == right
    missing = client.post(f"/katas/{slug}/history/99/restore")
    assert (missing.status_code, "has no version 99" in text_of(missing.text)) == (409, True)


@pytest.mark.parametrize("to", ["hint", "start", "reset"])
def test_what_was_typed_is_kept_before_all_else(served: Served, to: str) -> None:
    """Without script nothing has saved it. A hint makes no file of the stub that is shown."""
    slug, client, path = "learnable_prefix", served.client, served.path("learnable_prefix")
    path.unlink(missing_ok=True)
    tab = served.tab(slug)
    form = {"text": tab.text.replace("\n", "\r\n"), "base": tab.base, "rung": "1"}
    assert client.post(f"/katas/{slug}/{to}", data=form).status_code == 303
    assert path.exists() == (to != "hint")
    typed = f"typed = 'before {to}'\n"
    path.write_text("was = 1\n")
    form = {**form, "text": typed, "base": served.tab(slug).base, "rung": "2"}
    answer = client.post(f"/katas/{slug}/{to}", data=form)
    assert answer.headers["location"] == f"/katas/{slug}#{'hints' if to == 'hint' else 'work'}"
    assert path.read_text() == (typed if to == "hint" else stubs.stub(slug))
    last = served.history(slug)["versions"][-1]["number"]
    assert typed in html.unescape(client.get(f"/katas/{slug}/history/{last}").text)
    answer = client.post(f"/katas/{slug}/{to}", data=form)  # an old tab
    assert (answer.status_code, typed in html.unescape(answer.text)) == (409, True)


def test_the_solution_is_noted_when_it_is_shown(served: Served) -> None:
    """By a step after which one can go back, and load the page anew, for a while."""
    at = "/katas/bottleneck_adapter/solution"
    line = "return x + delta if self.residual else delta"
    assert line not in served.client.get(at).text
    served.tab("bottleneck_adapter").run("tried = 1\n")
    before = served.kata("stats", "--json")
    answer = served.client.post(at)
    assert (answer.status_code, answer.headers["location"]) == (303, at)
    assert line in served.client.get(at).text
    after = served.kata("stats", "--json")
    assert [_solutions(text) for text in (before, after)][1] == _solutions(before) + 1


def _solutions(stats: str) -> int:
    return sum(int(n) for n in re.findall(r'"solutions(?:_seen)?":\s*(\d+)', stats))


def test_today_is_that_of_the_terminal(served: Served) -> None:
    """The same queue, with and without a plan."""
    soon = f"{date.today() + timedelta(days=5)}"
    for words in (["--clear"], ["--interview", soon, "--minutes-per-day", "60"]):
        assert "error" not in served.kata("plan", *words)
        agenda = json.loads(served.kata("today", "--json"))
        shown = text_of(served.client.get("/").text)
        names = [entry["name"] for entry in [*agenda["due"], *agenda["new"]]][:12]
        kinds = {entry["name"]: entry["kind"] for entry in [*agenda["due"], *agenda["new"]]}
        assert names
        for name in names:
            title = catalog.card(name).title if kinds[name] == "kata" else name
            assert title in shown, name
        assert re.search(r"The week .* today [–\d]", shown)
    assert "the interview" in shown
    assert "in 5 days" in shown
    served.kata("plan", "--clear")


# The file is the truth


def test_a_change_made_elsewhere_is_never_overwritten(served: Served) -> None:
    """It is shown at once, and stops a save; whichever gives way is kept."""
    served.path().write_text("first = 1\n")
    tab = served.tab()
    with tab.events() as events:
        assert next(events) == ("file", {"base": tab.base})
        served.path().write_text("theirs = 2\n")
        name, data = next(events)
    assert name == "file"
    assert data["base"] != tab.base
    compared = tab.post("compare", text="mine = 3\n").json()
    assert compared["base"] == data["base"]
    assert "+theirs = 2" in text_of(compared["html"])
    refused = tab.save("mine = 3\n")
    assert (refused.status_code, refused.json()["base"]) == (409, data["base"])
    assert tab.post("run", text="mine = 3\n").status_code == 409
    assert served.path().read_text() == "theirs = 2\n"
    tab.base = data["base"]  # keep mine
    assert tab.save("mine = 3\n").status_code == 200
    served.path().write_text("theirs = 4\n")
    taken = tab.post("take", text="mine = 5\n").json()
    assert (taken["text"], served.path().read_text()) == ("theirs = 4\n", "theirs = 4\n")
    numbers = [version["number"] for version in served.history()["versions"][-3:]]
    pages = [served.client.get(f"/katas/{SLUG}/history/{number}").text for number in numbers]
    kept = [re.search(r"aria-label=\"The whole of it\">(.*?)</pre>", p, re.DOTALL) for p in pages]
    assert [found and found[1] for found in kept] == ["theirs = 2\n", "mine = 3\n", "mine = 5\n"]


def test_saves_at_the_same_moment(served: Served) -> None:
    """Of several that go out from one file just one is written; the others see that."""
    served.path("nf4_quantize").write_text("old = 0\n")
    tabs = [served.tab("nf4_quantize") for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        answers = [*threads.map(lambda n: tabs[n].save(f"new = {n}\n"), range(8))]
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert all("base" in answer.json() for answer in answers)
    written = [n for n, answer in enumerate(answers) if answer.status_code == 200]
    assert served.path("nf4_quantize").read_text() == f"new = {written[0]}\n"


def test_half_a_character_is_not_saved(served: Served) -> None:
    headers = {"content-type": "application/json"}
    body = b'{"text": "\\ud800", "base": ""}'
    answer = served.client.post("/katas/qlora_linear/save", content=body, headers=headers)
    assert answer.status_code in (400, 409)
    assert not served.path("qlora_linear").exists()


def test_a_file_that_went_or_came(served: Served) -> None:
    path = served.path("adapter_stack")
    tab = served.tab("adapter_stack")
    assert (tab.base, tab.text) == ("", stubs.stub("adapter_stack"))
    assert tab.save("a = 1\n").status_code == 200
    path.unlink()
    assert tab.save("a = 2\n").status_code == 200
    assert path.read_text() == "a = 2\n"
    late = served.tab("adapter_stack")
    late.base = ""
    assert late.save("b = 1\n").status_code == 409
    assert path.read_text() == "a = 2\n"


@pytest.mark.parametrize(
    ("there", "saved"),
    [
        (b"a = 1\r\nb = 2\r\n", b"a = 1\r\nc = 3\r\nb = 2\r\n"),
        (b"\xef\xbb\xbfa = 1\nb = 2\n", b"\xef\xbb\xbfa = 1\nc = 3\nb = 2\n"),
        (b"a = 1\rb = 2\r", b"a = 1\rc = 3\rb = 2\r"),
        (b"a = 1\r\nx\r\ny\r\nb = 2\n", b"a = 1\r\nc = 3\r\nb = 2\n"),
        (b"a = 1\nb = 2", b"a = 1\nc = 3\nb = 2"),
        (b"\n\na = 1\nb = 2\n", b"\n\na = 1\nc = 3\nb = 2\n"),
    ],
)
def test_line_ends_and_mark_stay(served: Served, there: bytes, saved: bytes) -> None:
    path = served.path("galore")
    path.write_bytes(there)
    tab = served.tab("galore")
    assert "\r" not in tab.text
    assert tab.save(tab.text).status_code == 200
    assert path.read_bytes() == there
    text = tab.text.replace("x\ny\n", "").replace("a = 1\n", "a = 1\nc = 3\n")
    assert tab.save(text).status_code == 200
    assert path.read_bytes() == saved


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (b"a = 1\nb = '\xff'\n", "It is no UTF-8: byte 0xff in line 2."),
        (b"a = 1\0\n", "It holds a zero byte"),
        (b"#" * ((1 << 20) + 1), "It is larger than 1 MiB"),
        (None, "is a folder."),
    ],
)
def test_what_cannot_be_edited_can_be_read(served: Served, there: bytes | None, why: str) -> None:
    """With the reason, and nothing to save it by; a save all the same changes nothing."""
    path = served.path("adalora")
    if there is None:
        path.mkdir()
    else:
        path.write_bytes(there)
    try:
        tab = served.tab("adalora")
        assert why in text_of(tab.html)
        assert "readonly" in tab.html
        assert 'name="text"' not in tab.html
        assert tab.post("save", text="x", base="").status_code == 409
        assert (path.read_bytes() if there is not None else None) == there
    finally:
        path.rmdir() if there is None else path.unlink()


# Grading


def test_two_tabs_do_not_mix(served: Served) -> None:
    """Each is told of its own run, and of no other; one that was hidden learns of it later."""
    one, two = served.tab(), served.tab("bitfit")
    served.path("bitfit").write_text(content.solution("bitfit").read_text())
    two.base = served.tab("bitfit").base
    first, second = one.begin(WRONG), two.begin(None)
    with one.events() as mine, two.events() as other:
        told = next(d for n, d in other if n != "file")
        assert (told["run"], told["slug"], told["passed"]) == (second, "bitfit", True)
        told = next(d for n, d in mine if n != "file")
        assert (told["run"], told["slug"], told["passed"]) == (first, SLUG, False)
    assert one.result(first)[1]["run"] == first
    with one.events(seen=first) as events:
        assert next(events)[0] == "file"
        served.path().touch()
        assert next(events)[0] == "file"


def test_a_newer_run_puts_an_end_to_the_older(served: Served) -> None:
    """At once, though it would last a quarter of an hour; no attempt of it is stored."""
    before = len(served.history()["attempts"])
    tab = served.tab()
    with tab.events() as events:
        older = tab.begin(SLEEPS)
        (judge,) = served.children()
        until(lambda: len(all_below(judge)) > 1, "it is not judged")
        newer = tab.begin(RIGHT)
        told = [next((n, d["run"]) for n, d in events if n != "file") for _ in range(2)]
    assert told == [("stopped", older), ("verdict", newer)]
    attempts = served.history()["attempts"][before:]
    assert [attempt["passed"] for attempt in attempts] == [True]


def test_a_run_is_stopped(served: Served) -> None:
    tab = served.tab()
    number = tab.begin(SLEEPS)
    assert tab.post("stop").status_code == 204
    assert tab.result(number)[0] == "stopped"
    assert tab.run(RIGHT)[1]["passed"]


def test_a_judge_that_died_is_started_again(served: Served) -> None:
    """Between two runs unnoticed, during one with a word; nothing of the old one is left."""
    tab = served.tab()
    (judge,) = served.children()
    below = all_below(judge)
    os.kill(judge, signal.SIGKILL)
    until(lambda: all(map(gone, below)), "a process is left")
    assert tab.run(RIGHT)[1]["passed"]
    (again,) = served.children()
    assert again != judge
    idle = len(all_below(again))
    number = tab.begin(SLEEPS)
    until(lambda: len(all_below(again)) > idle, "it is not judged")
    os.kill(again, signal.SIGKILL)
    name, data = tab.result(number)
    assert (name, data["text"].splitlines()[0]) == (
        "trouble",
        "The process that grades has died before it answered: nothing was graded.",
    )
    assert tab.run(RIGHT)[1]["passed"]


def test_a_file_that_is_not_there_is_not_graded(served: Served) -> None:
    tab = served.tab("vera_linear")
    name, data = tab.run(None)
    assert (name, "does not exist" in data["text"]) == ("trouble", True)


def test_the_server_itself_never_loads_torch(served: Served) -> None:
    assert "libtorch" not in Path(f"/proc/{served.process.pid}/maps").read_text()


# Start and stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Though a stream is open and a file is judged that would last; and without a traceback."""
    served = Served(tmp_path)
    with served.running() as running:
        until(running.children, "there is no judge")
        tab = running.tab()
        with tab.events() as events:
            assert next(events)[0] == "file"
            if number is signal.SIGINT:
                tab.begin(SLEEPS)
            (judge,) = running.children()
            pids = [judge, *all_below(judge)]
            running.process.send_signal(number)
            assert [name for name, _ in events if name == "bye"] == ["bye"]
        status = running.process.wait(PATIENCE_S)
        until(lambda: all(map(gone, pids)), "a process is left")
        assert running.process.stdout is not None
        assert running.process.stdout.read() == ""
    assert list(served.temporary.iterdir()) == []
    assert status == (0 if number is signal.SIGINT else -signal.SIGTERM)


def test_what_keeps_it_from_starting_is_a_line(served: Served, tmp_path: Path) -> None:
    said = served.kata("web", "--no-browser", "--port", str(served.port))
    assert said == f"error: Port {served.port} cannot be listened to: Address already in use.\n"
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('no', name='uvicorn')\n")
    done = subprocess.run(
        [sys.executable, "-m", "grader", "web", "--no-browser"],
        env={**served.environment, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    text = "error: The pages need their extra: pip install 'lora-kata[web]' (uvicorn is missing).\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", text)
