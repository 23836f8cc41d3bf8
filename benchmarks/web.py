"""How quick `kata web` is, as ratios to `import torch` measured side by side in the same run.

    python benchmarks/web.py [ROUNDS]

"first page" is from the start of the command to the whole page of a kata, entry and cookie
included; "verdict" from pressing Run to the verdict's event, of a file that passes, in a server
whose judge is warm. Needs the extra `[web]` and httpx.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from grader import content

SLUG = "lora_linear"
PATIENCE_S = 60.0


@contextmanager
def serving(folder: str) -> Iterator[tuple[httpx.Client, float]]:
    """A server of its own that has let us in, and when its command was started."""
    homes = {"KATA_HOME": f"{folder}/home", "KATA_WORKSPACE": folder}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "grader", "web", "--no-browser"],
        env={**os.environ, **homes},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        address = process.stdout.readline().strip()
        origin = address.partition("/enter")[0]
        with httpx.Client(
            base_url=origin, headers={"origin": origin}, timeout=PATIENCE_S
        ) as client:
            client.get(address).raise_for_status()
            yield client, began
    finally:
        process.terminate()
        process.wait()


def verdict(client: httpx.Client, page: str, text: str, base: str) -> tuple[float, str]:
    """Seconds from Run to the verdict that the page shows, and the file's new base."""
    address = f"/katas/{SLUG}/events?page={page}&seen=0"
    with client.stream("GET", address) as stream:
        lines = stream.iter_lines()
        next(lines)
        began = time.perf_counter()
        answer = client.post(f"/katas/{SLUG}/run", json={"page": page, "text": text, "base": base})
        answer.raise_for_status()
        for line in lines:
            if line == "event: verdict":
                seconds = time.perf_counter() - began
                assert json.loads(next(lines).removeprefix("data: "))["passed"]
                return seconds, answer.json()["base"]
    raise SystemExit("The server hung up before the verdict.")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    seconds: dict[str, list[float]] = {"import torch": [], "first page": [], "verdict": []}
    source = content.solution(SLUG).read_text()
    with tempfile.TemporaryDirectory() as folder, serving(folder) as (client, _):
        base = ""
        for number in range(rounds + 1):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import torch"], check=True)
            torch = time.perf_counter() - began
            text = f"{source}# {number}\n"
            judged, base = verdict(client, f"page{number}", text, base)
            with tempfile.TemporaryDirectory() as other, serving(other) as (newcomer, start):
                newcomer.get(f"/katas/{SLUG}").raise_for_status()
                first = time.perf_counter() - start
            if number:  # the first round fills caches
                for name, value in zip(seconds, (torch, first, judged)):
                    seconds[name].append(value)
        assert Path(folder, f"{SLUG}.py").read_text() == text
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:14} {value:8.3f} s   ({rounds} rounds, median)")
    for name, aim in (("first page", 1.0), ("verdict", 0.25)):
        ratio = medians[name] / medians["import torch"]
        word = "ok" if ratio <= aim else "MISSED"
        print(f"{name + ' / torch':22} {ratio:6.2f}   at most {aim:<4}  {word}")


if __name__ == "__main__":
    main()
