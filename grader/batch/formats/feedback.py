"""How much of a verdict is told: `full` for who grades, `named` or `score` for who learns.

What a learner gets below `full` holds no inputs, no values and nothing of a suite: of a failed
check its name and the title of the mistake that it found, of a file that could not be judged what
kind of trouble that was. `score` says no more than how many checks have passed.
"""

from typing import Any

from grader import catalog

LEVELS = ("full", "named", "score")


def shown(verdict: dict[str, Any], level: str) -> dict[str, Any]:
    """A verdict, the object of `kata run --json`, as far as it is told."""
    if level == "full":
        return verdict
    checks = verdict["checks"]
    told: dict[str, Any] = {key: verdict[key] for key in ("version", "slug", "passed", "level")}
    told["checks_passed"] = sum(check["outcome"] == "passed" for check in checks)
    told["checks_made"] = sum(check["outcome"] != "skipped" for check in checks)
    if level == "named":
        error = verdict["error"]
        told["error"] = None if error is None else {"kind": error["kind"]}
        told["checks"] = [
            {
                **{key: check[key] for key in ("name", "part", "outcome", "bug")},
                "message": title(verdict["slug"], check["bug"]),
            }
            for check in checks
        ]
    return told


def title(slug: str, bug: str | None) -> str:
    """What a named mistake is called; empty for none."""
    known = {one.id: one.title for one in catalog.entry(slug).bugs} if bug else {}
    return known.get(bug or "", "")
