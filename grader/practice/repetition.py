"""Reviews and what follows from them: a card's memory, and when it is due again.

Times come in as arguments (aware, UTC).
"""

from datetime import datetime

from grader.practice import schedule
from grader.store.memory import Answer, Memory, MemoryCard, Rating


def rate(
    memory: Memory, key: str, rating: Rating, now: datetime, answer: int | None = None
) -> MemoryCard:
    """Review a card (a new one too); returns it with its new due date. `answer` is the id of what
    was rated."""
    with memory.transaction():
        card = memory.card(key)
        before = None if card is None else card.memory
        after = schedule.review(before, rating, now)
        card = MemoryCard(key, after.memory, after.due)
        memory.add_review(key, rating, now, before, answer)
        memory.put(card)
    return card


def undo(memory: Memory, quiz: int | None = None) -> Answer | None:
    """Take the last rating of a quiz's answer back, of this quiz or of any.

    Returns the answer with the rating that it had, or None if there is none. Later reviews of
    the same card (from another quiz) stand.
    """
    with memory.transaction():
        found = memory.last_rated(quiz)
        if found is None:
            return None
        undone, answer = found
        memory.take_back(undone)
        replay(memory, undone.key)
    return answer


def replay(memory: Memory, key: str) -> None:
    """Make a card, and what each of its reviews began with, what its reviews say, one after
    another: one was taken back, or others came in between."""
    with memory.transaction():
        known = None
        for review in memory.reviews(key):
            if review.before != known:
                memory.rebase(review, known)
            known = schedule.review(known, review.rating, review.at).memory
        card = memory.card(key)
        if known is None:
            memory.forget(key)
        elif card is None or card.memory != known:
            memory.put(MemoryCard(key, known, schedule.due_of(known)))
