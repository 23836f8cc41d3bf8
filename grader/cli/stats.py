"""stats: what the record adds up to."""

from pathlib import Path

import click

from grader import catalog
from grader.cli import common, terminal
from grader.cli.export import write
from grader.practice import clock, statistics
from grader.practice.statistics import Statistics
from grader.recall import bank
from grader.render import stats as pages
from grader.store import Store


@click.command("stats")
@click.option(
    "--html", metavar="FILE", type=click.Path(path_type=Path), help="Write it as one HTML page."
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@common.as_json
def stats_command(html: Path | None, force: bool, json_: bool) -> None:
    """Streak and days of practice, recall by topic, katas against par."""
    topics: dict[str, list[str]] = {topic: [] for topic in bank.TOPICS}
    for question in bank.load():
        topics[question.topic].append(f"question:{question.id}")
    cards = {card.slug: card for card in catalog.cards()}
    with Store.open(create=False) as store:
        found = statistics.gather(store, clock.now().astimezone(), topics, cards)
    if html is not None:
        from grader.render import stats_html

        write(html, stats_html.page(found, cards).encode(), force)
        if not json_:
            terminal.say(f"{html} is written: open it in a browser.")
    if json_:
        terminal.say_json(_object(found, cards))
    elif html is None:
        terminal.say(*pages.page(found, cards, terminal.width(), terminal.colour()))


def _object(stats: Statistics, cards: dict[str, catalog.Card]) -> dict[str, object]:
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
        "weakest_topic": weakest.name if weakest else None,
        "weakest": stats.weakest,
        "katas": [
            {
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
                        "against_par": round(pages.against_par(solve, cards), 3),
                        "hints": solve.hints,
                        "saw_solution": solve.saw_solution,
                    }
                    for solve in kata.solves
                ],
            }
            for kata in stats.katas
        ],
    }
