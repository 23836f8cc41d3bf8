"""What a grading leads to: the time to beat, the kata that follows, questions on it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from grader import catalog
from grader.practice import clock, current
from grader.practice.grading import Graded
from grader.recall import agenda
from grader.store import Store, StoreError


@dataclass(frozen=True)
class After:
    """best_s: the shortest time before this attempt, in seconds; questions: their ids."""

    best_s: float | None = None
    next_slug: str | None = None
    questions: Sequence[str] = ()


def after(graded: Graded) -> After:
    """Nothing unless it passed; questions only after a whole attempt that was stored."""
    verdict = graded.verdict
    if not verdict.passed:
        return After()
    slug = verdict.slug
    solved = verdict.only is None and graded.recorded is not None
    try:
        with Store.open(create=False) as store:
            times = [solve.seconds for solve in store.attempts.solves() if solve.slug == slug]
            following = agenda.next_kata(store, clock.now().astimezone())
            questions = _questions(store, slug) if solved else ()
    except StoreError:
        return After(None, current.following(slug, {}))
    return After(min(times[:-1], default=None), following, questions)


def _questions(store: Store, slug: str) -> list[str]:
    """Two of the bank's questions on the kata: those never asked first, then those due first; of
    equals those that drill most of its known mistakes."""
    from grader.recall import bank  # 500 questions: most gradings do without

    due = {key: card.due.timestamp() for key, card in store.memory.cards().items()}
    drilled = Counter(bug.question for bug in catalog.entry(slug).bugs)
    ids = [question.id for question in bank.load() if slug in question.katas]
    return sorted(ids, key=lambda id: (due.get(f"question:{id}", 0.0), -drilled[id]))[:2]
