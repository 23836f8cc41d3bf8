"""The learner's record over everything there is to practise."""

from datetime import datetime

from grader import catalog
from grader.practice import statistics
from grader.practice.statistics import Statistics
from grader.recall import bank
from grader.store import Store


def statistics_of(store: Store, now: datetime) -> Statistics:
    """What it adds up to `now` (in the learner's own time zone)."""
    topics: dict[str, list[str]] = {topic: [] for topic in bank.TOPICS}
    decks: dict[str, list[str]] = {deck: [] for deck in bank.DECKS}
    for question in bank.load():
        decks[question.deck].append(f"question:{question.id}")
        if question.deck == bank.CORE:
            topics[question.topic].append(f"question:{question.id}")
    return statistics.gather(store, now, topics, decks, [card.slug for card in catalog.cards()])
