"""What `--json` prints. A verdict alone has its agreed object with it: `Verdict.as_json`, since
whoever keeps or sends verdicts needs that object too.

No command pays for the others: types are imported for checking only.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grader.catalog import Card
    from grader.exam.verdict import Verdict
    from grader.interview.paper import Paper
    from grader.interview.report import Report
    from grader.practice.plan import Forecast, Item, Plan, Stop
    from grader.practice.statistics import KataRecord, Statistics
    from grader.recall.agenda import Agenda, Entry
    from grader.store.attempts import Attempt, Snapshot
    from grader.store.backups import Backup
    from grader.views.listing import Row

Object = dict[str, Any]


def katas(rows: "Sequence[Row]", end: datetime) -> Object:
    """`kata list`. What is due before `end`, the end of the study day, is due."""
    return {
        "katas": [
            {
                "slug": card.slug,
                "title": card.title,
                "track": card.track,
                "order": card.order,
                "needs": card.needs,
                "difficulty": card.difficulty,
                "minutes": card.minutes,
                "level": standing.level,
                "attempts": standing.attempts,
                "best_seconds": standing.best_s,
                "due": due is not None and due < end,
                "due_at": due,
            }
            for card, standing, due in rows
        ]
    }


def verdicts(found: "Sequence[Verdict]") -> Object:
    """`kata run --all`: the objects that `kata run` gives for each."""
    import msgspec

    return {
        "version": 1,
        "passed": all(verdict.passed for verdict in found),
        "katas": [msgspec.json.decode(verdict.as_json()) for verdict in found],
    }


def history(slug: str, snapshots: "Sequence[Snapshot]", attempts: "Sequence[Attempt]") -> Object:
    """`kata history`."""
    return {
        "slug": slug,
        "versions": [
            {
                "number": snapshot.number,
                "at": snapshot.at,
                "reason": snapshot.reason,
                "bytes": len(snapshot.source),
                "sha256": snapshot.sha256,
            }
            for snapshot in snapshots
        ],
        "attempts": [
            {
                "number": attempt.number,
                "at": attempt.at,
                "version": attempt.snapshot,
                "part": attempt.part,
                "check": attempt.check,
                "passed": attempt.passed,
                "level": attempt.level,
                "seed": attempt.seed,
                "seconds": round(attempt.seconds, 3),
                "checks_passed": attempt.checks[0],
                "checks": attempt.checks[1],
            }
            for attempt in attempts
        ],
    }


def backups(found: "Sequence[Backup]") -> Object:
    """`kata backup --list`."""
    return {
        "backups": [
            {
                "name": backup.name,
                "path": str(backup.path),
                "at": backup.at,
                "by": backup.by,
                "bytes": backup.bytes,
            }
            for backup in found
        ]
    }


def today(agenda: "Agenda") -> Object:
    """`kata today`."""
    from grader.views.today import commands

    return {
        "day": agenda.day,
        "plan": agenda.plan,
        "due": [_entry(entry) for entry in agenda.due],
        "new": [_entry(entry) for entry in agenda.new],
        "minutes": agenda.minutes,
        "done_minutes": agenda.done_minutes,
        "stops": _stops(agenda.stops),
        "beyond": [_entry(entry) for entry in agenda.beyond],
        "next_due": agenda.next_due,
        "commands": commands(agenda),
    }


def _entry(entry: "Entry") -> Object:
    return {
        "key": entry.item.key,
        "kind": entry.kind,
        "name": entry.name,
        "about": entry.about,
        "minutes": entry.item.minutes,
        "due": entry.due,
    }


def plan(
    plan: "Plan", outlook: "Forecast", seen: tuple[int, int], missed: "Sequence[date]"
) -> Object:
    """`kata plan`. `seen`: how many things have been seen already, and of how many; `missed`: the
    last days, if nothing was practised on them."""
    return {
        "plan": plan,
        "seen": seen[0],
        "of": seen[1],
        "missed": missed,
        "suffices": not outlook.left_out,
        "left_out": _keys(outlook.left_out),
        "enough_minutes_per_day": outlook.enough_minutes,
        "recall_if_stopped": round(outlook.recall_now, 4),
        "recall_with_plan": round(outlook.recall_then, 4),
        "days": [
            {
                "day": day.day,
                "minutes": day.minutes,
                "new": _keys(day.new),
                "again": _keys(day.again),
                "stops": _stops(day.stops),
            }
            for day in outlook.days
        ],
    }


def _stops(stops: "Sequence[tuple[Stop, float]]") -> list[Object]:
    return [{"kind": stop.kind, "minutes": minutes} for stop, minutes in stops]


def _keys(items: "Sequence[Item]") -> list[str]:
    return [item.key for item in items]


def statistics(stats: "Statistics", cards: "Mapping[str, Card]") -> Object:
    """`kata stats`. cards: the catalogue's cards by slug."""
    weakest = stats.weakest_topic
    return {
        "day": stats.day,
        "streak": stats.streak,
        "longest_streak": stats.longest,
        "days": {day.isoformat(): number for day, number in stats.days.items()},
        "answers": stats.answers,
        "attempts": stats.attempts,
        "hunts": stats.hunts,
        "topics": stats.topics,
        "decks": stats.decks,
        "weakest_topic": weakest.name if weakest else None,
        "weakest": stats.weakest,
        "katas": [_record(kata, cards) for kata in stats.katas],
    }


def _record(kata: "KataRecord", cards: "Mapping[str, Card]") -> Object:
    from grader.views.stats import against_par

    return {
        "slug": kata.slug,
        "level": kata.level,
        "attempts": kata.attempts,
        "hints": kata.hints,
        "solutions_seen": kata.solutions,
        "par_seconds": 60 * cards[kata.slug].minutes,
        "solves": [
            {
                "at": solve.at,
                "seconds": round(solve.seconds, 1),
                "against_par": round(against_par(solve, cards), 3),
                "hints": solve.hints,
                "saw_solution": solve.saw_solution,
            }
            for solve in kata.solves
        ],
    }


def outline(paper: "Paper") -> Object:
    """`kata mock --plan`: the paper without what would give it away: no bug, no question, no
    answer."""
    return {
        "seed": paper.seed,
        "minutes": paper.minutes,
        "level": paper.level,
        "focus": paper.focus,
        "deck": paper.deck,
        "rounds": [
            {
                "kind": round.kind,
                "minutes": round.minutes,
                "par": round.par,
                "slug": round.slug,
                "asks": len(round.asks),
            }
            for round in paper.rounds
        ],
        "notes": paper.notes,
    }


def mock(report: "Report") -> Object:
    """An item of `kata mock --list`, and the beginning of `kata mock --report`."""
    return {
        "number": report.number,
        "at": report.at,
        "minutes": report.paper.minutes,
        "level": report.paper.level,
        "seed": report.paper.seed,
        "finished": report.finished,
        "abandoned": report.abandoned,
        "verdict": report.verdict.hire if report.verdict else None,
        "score": round(report.verdict.score, 3) if report.verdict else None,
        "used_s": round(report.used_s, 1),
        "over_s": round(report.over_s, 1),
    }


def mock_report(report: "Report") -> Object:
    """`kata mock --report`."""
    whole = {"breaks": report.breaks, "rounds": report.rounds, "drills": report.drills}
    return {**mock(report), **whole}
