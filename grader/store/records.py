"""The record in a form that two machines can join: all that happened, row by row.

A row is known by its `uid`, a setting by its key, and refers to others by theirs. Ids, the numbers
of versions, attempts and interviews, and folders are each machine's own and stay out, and so does
what follows from the reviews: cards, and the memory before each review.

Two records are joined by taking the rows of both. Where both have a row it is the one that has gone
further: a round whose clock was stopped, what has ended, an answer that was given later, a rating
that was taken back, a setting made later. That does not depend on who joins whom, or how often.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from grader.errors import UsageFault
from grader.exam.verdict import Level, Verdict
from grader.store.attempts import Reason
from grader.store.database import Section, stored_time
from grader.store.memory import Rating

Row = dict[str, Any]
Rows = Mapping[str, Sequence[Row]]

# Settings that mean nothing elsewhere: they name folders and rows of this machine.
_HERE = ("workspace", "current", "hunt:", "mock:")


class _Table(msgspec.Struct, frozen=True):
    """own: columns that stay here; refers: columns that hold the id of another table's row;
    grows: those that change later, what tells most first (`-`: the smaller has gone further)."""

    own: tuple[str, ...] = ("id",)
    refers: Mapping[str, str] = {}
    grows: tuple[str, ...] = ()
    by: str = "uid"


# What is referred to comes first.
TABLES = {
    "snapshots": _Table(own=("id", "number")),
    "rounds": _Table(grows=("-timed",)),
    "attempts": _Table(own=("id", "number"), refers={"round": "rounds", "snapshot": "snapshots"}),
    "hints_seen": _Table(refers={"round": "rounds"}),
    "solutions_seen": _Table(refers={"round": "rounds"}),
    "work": _Table(),
    "quizzes": _Table(grows=("ended",)),
    "interviews": _Table(own=("id", "folder"), grows=("ended",)),
    "interview_events": _Table(refers={"interview": "interviews"}),
    "answers": _Table(
        refers={"quiz": "quizzes", "interview": "interviews"},
        grows=("at", "seconds", "points", "correct", "text", "quiz"),
    ),
    "reviews": _Table(own=("id", "before"), refers={"answer": "answers"}, grows=("undone",)),
    "settings": _Table(own=(), grows=("changed", "value"), by="key"),
}
DERIVED = ("cards",)


class Change(msgspec.Struct, frozen=True):
    """A row to be added, or to be brought as far as it is elsewhere."""

    table: str
    row: Row
    new: bool


class Records(Section):
    """The record of an open database."""

    # Out

    def all(self) -> dict[str, list[Row]]:
        """Every row by table, in an order that is the same wherever the same rows are."""
        return {name: self._rows(name) for name in TABLES}

    def _rows(self, name: str) -> list[Row]:
        table = TABLES[name]
        wanted = [column for column in self._columns(name) if column not in table.own]
        picked, joined = [], ""
        for column in wanted:
            if other := table.refers.get(column):
                joined += f" LEFT JOIN {other} AS {column}_ ON {column}_.id = {name}.{column}"
                picked.append(f"{column}_.uid AS {column}")
            else:
                picked.append(f"{name}.{column}")
        query = f"SELECT {', '.join(picked)} FROM {name}{joined} ORDER BY {name}.{table.by}"
        found = [dict(row) for row in self._db.rows(query)]
        try:
            if name == "settings":
                found = [row for row in found if not row["key"].startswith(_HERE)]
            if name == "quizzes":
                for row in found:
                    row["options"] = _without_pid(row["options"])
            if name == "interview_events":
                self._swap_versions(found, {(s, n): uid for s, n, uid in self._versions()})
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise self._db.damaged(f": {name}, {error}") from error
        return [{column: _out(value) for column, value in row.items()} for row in found]

    def _columns(self, table: str) -> dict[str, tuple[str, bool]]:
        """Its columns: the type, and whether a row must have it."""
        rows = self._db.rows(f"PRAGMA table_info({table})")
        return {
            row["name"]: (row["type"], bool(row["notnull"]) and row["dflt_value"] is None)
            for row in rows
        }

    def _versions(self) -> list[tuple[str, int, str]]:
        rows = self._db.rows("SELECT slug, number, uid FROM snapshots")
        return [(row["slug"], row["number"], row["uid"]) for row in rows]

    def _swap_versions(self, happened: Sequence[Row], names: Mapping[tuple[str, Any], Any]) -> None:
        """An event that names a version of a kata's file by its number names it by uid instead,
        or the other way round."""
        rows = self._db.rows("SELECT uid, plan FROM interviews")
        plans = {row["uid"]: row["plan"] for row in rows}
        for row in happened:
            data = json.loads(row["data"])
            if data.get("snapshot") is not None:
                round = json.loads(plans[row["interview"]])["rounds"][data["round"]]
                data["snapshot"] = names.get((round.get("slug"), data["snapshot"]))
                row["data"] = json.dumps(data)

    # In

    def compare(self, incoming: Rows) -> list[Change]:
        """What another record has and this has not. Raises UsageFault, naming what is wrong, if a
        row is none of ours."""
        found: list[Change] = []
        known: dict[str, set[str]] = {}
        for name, table in TABLES.items():
            mine = {row[table.by]: row for row in self._rows(name)}
            known[name] = set(mine)
            columns = self._columns(name)
            for place, row in enumerate(incoming.get(name, ())):
                _check(f"{name}[{place}]", row, table, columns)
                for column, other in table.refers.items():
                    if row.get(column) is not None and row[column] not in known[other]:
                        raise UsageFault(
                            f"{name}[{place}].{column} is no row of {other}: {row[column]!r}."
                        )
                key = row[table.by]
                if key not in known[name]:
                    found.append(Change(name, row, True))
                    known[name].add(key)
                elif key in mine and _further(row, table) > _further(mine[key], table):
                    found.append(Change(name, row, False))
        return found

    def join(self, changes: Sequence[Change], interviews: Path) -> Counter[str]:
        """Take what `compare` has found; returns how many rows are new, by table. Files of
        interviews belong into `interviews`."""
        new: Counter[str] = Counter()
        with self._db.transaction():
            for name in TABLES:
                changed = [change for change in changes if change.table == name]
                new[name] = sum(change.new for change in changed)
                if changed:
                    self._join(name, changed, interviews)
        return new

    def _join(self, name: str, changes: Sequence[Change], interviews: Path) -> None:
        table, types = TABLES[name], self._columns(name)
        ids = {
            column: {row["uid"]: row["id"] for row in self._db.rows(f"SELECT id, uid FROM {other}")}
            for column, other in table.refers.items()
        }
        rows = [(dict(change.row), change.new) for change in changes]
        if name == "interview_events":
            numbers = {(slug, uid): number for slug, number, uid in self._versions()}
            self._swap_versions([row for row, _ in rows], numbers)
        for row, new in sorted(rows, key=lambda pair: pair[0][table.by]):
            for column, value in row.items():
                if column in ids:
                    row[column] = ids[column].get(value)
                elif types[column][0] == "BLOB":
                    row[column] = _in(value)
            if not new:
                columns = [column.lstrip("-") for column in table.grows]
                said = ", ".join(f"{column} = ?" for column in columns)
                values = [row.get(column) for column in columns]
                self._db.rows(
                    f"UPDATE {name} SET {said} WHERE {table.by} = ?", [*values, row[table.by]]
                )
                continue
            if "number" in table.own:
                row["number"] = self._next_number(name, row["slug"])
            if "folder" in table.own:
                row["folder"] = ""
            said, marks = ", ".join(row), ", ".join("?" * len(row))
            id = self._db.insert(f"INSERT INTO {name} ({said}) VALUES ({marks})", [*row.values()])
            if "folder" in table.own:
                folder = str(interviews / str(id))
                self._db.rows(f"UPDATE {name} SET folder = ? WHERE id = ?", (folder, id))

    def _next_number(self, table: str, slug: str) -> int:
        row = self._db.row(f"SELECT max(number) AS last FROM {table} WHERE slug = ?", (slug,))
        return 1 + (row["last"] or 0 if row else 0)


def _further(row: Row, table: _Table) -> list[tuple[bool, Any]]:
    """What is larger has gone further."""
    found: list[tuple[bool, Any]] = []
    for column in table.grows:
        value = row.get(column.lstrip("-"))
        if value is None:
            found.append((False, 0))
        else:
            found.append((True, -value if column.startswith("-") else value))
    return found


def _without_pid(options: str) -> str:
    """A quiz's options but for the number of its process, which elsewhere is another's."""
    fields = json.loads(options)
    fields.pop("pid", None)
    return json.dumps(fields)


def _out(value: Any) -> Any:
    """Bytes as text, or in base64 where they are none."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _in(value: Any) -> bytes:
    """Raises ValueError."""
    if isinstance(value, str):
        return value.encode()
    return base64.b64decode(value["base64"], validate=True)


# What a row must hold


def _check(where: str, row: Any, table: _Table, columns: Mapping[str, tuple[str, bool]]) -> None:
    if not isinstance(row, dict):
        raise UsageFault(f"{where} is no object.")
    known = {name: about for name, about in columns.items() if name not in table.own}
    if strange := sorted(set(row) - set(known)):
        raise UsageFault(f"{where} has a field that this kata does not know: {strange[0]}.")
    for name, (kind, needed) in known.items():
        value = row.get(name)
        if value is None:
            if needed or name == table.by:
                raise UsageFault(f"{where}.{name} is missing.")
        elif not _is(value, "TEXT" if name in table.refers else kind):
            raise UsageFault(f"{where}.{name} is not what belongs there: {value!r:.60}.")
        elif name in _VALUES:
            try:
                _VALUES[name](value)
            except (ValueError, TypeError, KeyError, msgspec.MsgspecError):
                raise UsageFault(
                    f"{where}.{name} is not what belongs there: {value!r:.60}."
                ) from None
    if "sha256" in row and "source" in row:
        import hashlib

        if hashlib.sha256(_in(row["source"])).hexdigest() != row["sha256"]:
            raise UsageFault(f"{where}.source was changed: it is not what sha256 says.")


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "INTEGER":
            return isinstance(value, int) and abs(value) < 2**63
        case "REAL":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "BLOB":
            encoded = isinstance(value, dict) and [*value] == ["base64"]
            return isinstance(value, str) or (encoded and isinstance(value["base64"], str))
        case _:
            return isinstance(value, str)


def _time(text: str) -> None:
    if stored_time(datetime.fromisoformat(text)) != text:
        raise ValueError(text)


def _uid(text: str) -> None:
    """Others are made from the largest: one that is none would spoil them all."""
    if _UID.fullmatch(text[_TIME:]) is None:
        raise ValueError(text)
    _time(text[:_TIME])


_TIME = len("2026-03-01T09:30:00.000000+00:00")
_UID = re.compile(r"-[0-9a-f]{8,}(-[0-9a-f]{12})?")

_VALUES: Mapping[str, Callable[[Any], object]] = {
    "uid": _uid,
    "at": _time,
    "ended": _time,
    "changed": lambda text: text == "" or datetime.fromisoformat(text),
    "reason": Reason,
    "level": Level,
    "rating": Rating,
    "source": _in,
    "verdict": lambda text: msgspec.json.decode(text, type=Verdict),
    "options": lambda text: msgspec.json.decode(text, type=dict[str, Any]),
    "plan": lambda text: msgspec.json.decode(text, type=dict[str, Any]),
    "data": lambda text: msgspec.json.decode(text, type=dict[str, Any]),
    "points": lambda text: msgspec.json.decode(text, type=list[int]),
}
