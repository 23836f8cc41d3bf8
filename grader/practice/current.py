"""The current kata: the one that commands without SLUG mean."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from grader import catalog
from grader.errors import UsageFault
from grader.exam.verdict import Level
from grader.practice import queue, schedule, stubs
from grader.practice.workspace import Workspace
from grader.store import Store
from grader.store.attempts import Standing

_SETTING = "current"


class Current(msgspec.Struct, frozen=True):
    """`seen` is when, in nanoseconds of its file system's own clock, any kata in `folder` had
    been changed last as this one became current: what is later was edited since."""

    slug: str
    folder: str
    seen: int


def read(store: Store) -> Current | None:
    """The current kata; None before the first one, or if the catalogue has it no more."""
    text = store.settings.get(_SETTING)
    try:
        found = msgspec.json.decode(text, type=Current) if text else None
    except msgspec.DecodeError:
        return None
    return found if found is not None and found.slug in catalog.slugs() else None


def make(store: Store, slug: str, space: Workspace) -> None:
    """Make it the current kata."""
    seen = max(_changed(space).values(), default=0)
    new = Current(slug, str(space.folder), seen)
    if new != read(store):
        store.settings.set(_SETTING, msgspec.json.encode(new).decode())


def meant(now: Current | None, space: Workspace) -> str:
    """The kata that `run` without SLUG grades: the one edited last since `now` became current,
    or else that one. Raises UsageFault where there is neither."""
    here = now if now is not None and now.folder == str(space.folder) else None
    since = here.seen if here else 0
    changed = _changed(space)
    for slug in sorted(changed, key=lambda s: changed[s], reverse=True):
        if changed[slug] <= since:
            break
        if here is not None and slug == here.slug:
            return slug
        if is_begun(space, slug):
            return slug
    if now is not None:
        return now.slug
    raise UsageFault(
        f"Nothing is edited in {space.folder} and no kata is current: nothing is graded.\n"
        "`kata start SLUG` begins one, `kata list` names them."
    )


def begun(space: Workspace) -> list[str]:
    """The katas whose file is more than the blank stub, in teaching order."""
    return [card.slug for card in catalog.cards() if is_begun(space, card.slug)]


def is_begun(space: Workspace, slug: str) -> bool:
    """Whether a kata's file is there, and more than the blank stub."""
    try:
        return space.path(slug).read_bytes() != stubs.stub(slug).encode()
    except FileNotFoundError:
        return False


def _changed(space: Workspace) -> dict[str, int]:
    """When each kata's file was changed last, by slug."""
    found = {}
    for slug in catalog.slugs():
        try:
            found[slug] = space.path(slug).stat().st_mtime_ns
        except OSError:
            continue
    return found


def following(slug: str | None, standings: Mapping[str, Standing]) -> str | None:
    """The nearest kata after this one, in teaching order and round again, not passed yet."""
    done = {slug, *(s for s, standing in standings.items() if standing.level is Level.COMPLETE)}
    order = [card.slug for card in catalog.cards()]
    place = order.index(slug) if slug is not None else 0
    return next((s for s in order[place:] + order[:place] if s not in done), None)


def upcoming(store: Store, now: datetime) -> str | None:
    """What to do next: the kata most overdue, or else the one that follows the current one. What
    was passed today waits until tomorrow. None when all are passed and none is due. `now` is in
    the learner's own time zone."""
    cards, standings, here = store.memory.cards(), store.attempts.standings(), read(store)
    keys = {f"kata:{slug}": slug for slug in catalog.slugs()}
    due = queue.ordered([key for key in keys if key in cards], cards, now)
    since = schedule.day_end(now) - timedelta(days=1)
    waiting = [
        keys[key]
        for key in due
        if schedule.reviewed_at(cards[key].memory) < since
        and (here is None or keys[key] != here.slug)
    ]
    return waiting[0] if waiting else following(here.slug if here else None, standings)
