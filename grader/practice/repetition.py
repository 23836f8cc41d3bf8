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
    the same card (from another quiz) stand: they are done again on what was before.
    """
    with memory.transaction():
        found = memory.last_rated(quiz)
        if found is None:
            return None
        undone, answer = found
        memory.take_back(undone)
        known = undone.before
        for later in memory.reviews(undone.key):
            if later.id > undone.id:
                memory.rebase(later, known)
                known = schedule.review(known, later.rating, later.at).memory
        if known is None:
            memory.forget(undone.key)
        else:
            memory.put(MemoryCard(undone.key, known, schedule.due_of(known)))
    return answer
