"""Random sequences of calls, held against a model, and shrunk to the shortest that still fails.

A suite has a model of what is right and one of each known mistake: `model.play(calls)` gives what
each call should leave, as a dict. One probe call plays several sequences beside the submission, so
a check asks once; it asks again only to learn more about what failed, and to shrink it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from grader.exam.checks import CheckFailed

Call = TypeVar("Call")
Call_contra = TypeVar("Call_contra", contravariant=True)
Seen = dict[str, Any]  # what a call left: field -> value

_ROUNDS = 60


class Model(Protocol[Call_contra]):
    bug: str | None

    def play(self, calls: Sequence[Call_contra]) -> list[Seen]: ...


def first_difference(got: list[Seen], want: list[Seen]) -> int | None:
    """Which call is the first to leave something else in a field that `want` has."""
    for at, (one, right) in enumerate(zip(got, want)):
        if any(one.get(field) != value for field, value in right.items()):
            return at
    return None


def mistake(
    traces: list[list[Seen]], sequences: Sequence[Sequence[Call]], models: Iterable[Model[Call]]
) -> str | None:
    """The bug whose models leave just what came, in every sequence; None if that is not one bug."""
    found = {
        model.bug
        for model in models
        if all(
            first_difference(trace, model.play(calls)) is None
            for trace, calls in zip(traces, sequences)
        )
    }
    return found.pop() if len(found) == 1 else None


def judge(
    play: Callable[[list[list[Call]]], list[list[Seen]]],
    sequences: list[list[Call]],
    more: Callable[[], list[list[Call]]],
    right: Model[Call],
    mistakes: Iterable[Model[Call]],
    tidy: Callable[[list[Call]], list[Call]],
    story: Callable[[list[Call], Seen, Seen], str],
) -> None:
    """Fail unless every sequence leaves what `right` says after each call.

    play: runs sequences beside the submission; more: others, which a mistake has to explain too if
    it is to be named; tidy: takes out calls that mean nothing without
    one that is gone; story: the calls to read, with what came and what is right after the last.
    """
    traces = play(sequences)
    wants = [right.play(calls) for calls in sequences]
    ends = [first_difference(*pair) for pair in zip(traces, wants)]
    failing = [calls[: at + 1] for calls, at in zip(sequences, ends) if at is not None]
    if not failing:
        return
    others = more()
    bug = mistake([*traces, *play(others)], [*sequences, *others], mistakes)
    calls, got, want = _shrunk(play, min(failing, key=len), right, tidy)
    raise CheckFailed(story(calls, got, want), bug)


def _shrunk(
    play: Callable[[list[list[Call]]], list[list[Seen]]],
    calls: list[Call],
    right: Model[Call],
    tidy: Callable[[list[Call]], list[Call]],
) -> tuple[list[Call], Seen, Seen]:
    """The shortest failing sequence found by leaving out calls, and what its last one leaves."""
    tried = [tidy(calls)]
    for _ in range(_ROUNDS):
        best: tuple[list[Call], Seen, Seen] | None = None
        for shorter, trace in zip(tried, play(tried)):
            want = right.play(shorter)
            at = first_difference(trace, want)
            if at is not None and (best is None or at + 1 < len(best[0])):
                best = shorter[: at + 1], trace[at], want[at]
        if best is None:
            break
        found = best
        last = len(found[0]) - 1
        tried = [tidy(found[0][:at] + found[0][at + 1 :]) for at in range(last)]
        tried = [shorter for shorter in tried if shorter]
        if not tried:
            break
    return found
