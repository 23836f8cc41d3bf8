"""A cache with a budget, pins and loads that may fail: a model of what is right, and one of each
known mistake.

An adapter is a tuple of tensors (key, numel, dtype, of): `of` is "" or the key of a tensor of
which this one is the beginning. A call is (verb, name, token, failure): "get", "enter" a use()
that `token` tells from others, "leave" it, or "raise" in it; failure: what load, or the block,
raises, if anything.
"""

# What no `except Exception` catches.
INTERRUPTS = ("KeyboardInterrupt", "SystemExit", "GeneratorExit")


class End(Exception):
    """A call ends in an exception: "load" for what load raised, else its type."""


class Cache:
    """What is right. Names are held least recently used first; pins: token -> name, and names the
    same of all that were entered."""

    bug = None

    def __init__(self, adapters, budget):
        self.adapters, self.budget = adapters, budget
        self.clear()

    def clear(self):
        self.held, self.pins, self.names, self.loads = {}, {}, {}, []

    def play(self, calls):
        """What is there after each call."""
        self.clear()
        seen, inside = [], set()
        for verb, name, token, failure in calls:
            before, end = len(self.loads), "ok"
            try:
                if verb == "get":
                    self.get(name, failure)
                elif verb == "enter":
                    self.names[token] = name
                    self.enter(name, token, failure)
                    inside.add(token)
                if verb in ("get", "enter"):
                    end = self.given(name)
                elif token in inside:
                    end = self.leave(token, failure) or "ok"
            except End as error:
                end = str(error)
            left = {"end": end, "resident": self.resident(), "used_bytes": self.used()}
            seen.append({**left, "loads": self.loads[before:]})
        return seen

    def given(self, name):
        return "ok"

    def resident(self):
        return list(self.held)

    def used(self):
        return sum(map(self.size, self.held))

    def size(self, name):
        return sum(numel * dtype.itemsize for _, numel, dtype, _ in self.adapters[name])

    def get(self, name, failure):
        if name in self.held:
            self.touch(name)
        else:
            self.load(name, failure)
            self.admit(name)

    def touch(self, name):
        self.held[name] = self.held.pop(name)

    def load(self, name, failure):
        self.loads.append(name)
        if failure:
            raise End("load")

    def admit(self, name):
        self.check(name)
        self.evict(name)
        self.held[name] = True

    def check(self, name):
        if self.size(name) > self.budget:
            raise End("MemoryError")
        if self.size(name) + sum(map(self.size, self.pinned())) > self.budget:
            raise End("RuntimeError")

    def evict(self, name):
        for victim in self.victims(name):
            if self.fits(name):
                break
            del self.held[victim]

    def pinned(self):
        return [name for name in self.held if name in self.pins.values()]

    def victims(self, name):
        return [name for name in self.held if name not in self.pins.values()]

    def fits(self, name):
        return self.used() + self.size(name) <= self.budget

    def enter(self, name, token, failure):
        self.get(name, failure)
        self.pins[token] = name

    def leave(self, token, raised):
        self.pins.pop(token, None)

    def unpin(self, name):
        self.pins = {token: other for token, other in self.pins.items() if other != name}


MISTAKES = []


def known(bug):
    """A class of caches that make this mistake."""

    def note(kind):
        kind.bug = bug
        MISTAKES.append(kind)
        return kind

    return note


@known("hits-do-not-count")
class Fifo(Cache):
    def touch(self, name):
        pass


@known("use-does-not-count")
class UseDoesNotCount(Cache):
    def enter(self, name, token, failure):
        if name not in self.held:
            self.get(name, failure)
        self.pins[token] = name


@known("leaving-counts")
class LeavingCounts(Cache):
    def leave(self, token, raised):
        name = self.pins.pop(token, None)
        if name in self.held:
            self.touch(name)


@known("leaving-counts")
class LastLeavingCounts(Cache):
    def leave(self, token, raised):
        name = self.pins.pop(token, None)
        if name in self.held and name not in self.pins.values():
            self.touch(name)


@known("most-recent-evicted")
class MostRecent(Cache):
    def victims(self, name):
        return super().victims(name)[::-1]


@known("resident-reversed")
class Reversed(Cache):
    def resident(self):
        return super().resident()[::-1]


@known("one-evicted-only")
class OneOnly(Cache):
    def victims(self, name):
        return super().victims(name)[:1]


@known("all-evicted")
class AllEvicted(Cache):
    def evict(self, name):
        if not self.fits(name):
            for victim in self.victims(name):
                del self.held[victim]


@known("exact-fit-evicts")
class ExactEvicts(Cache):
    def fits(self, name):
        return self.used() + self.size(name) < self.budget


@known("exact-fit-refused")
class ExactRefused(ExactEvicts):
    def check(self, name):
        if self.size(name) >= self.budget:
            raise End("MemoryError")
        if self.size(name) + sum(map(self.size, self.pinned())) >= self.budget:
            raise End("RuntimeError")


@known("exact-fit-refused")
class ExactTooLarge(Cache):
    def check(self, name):
        if self.size(name) >= self.budget:
            raise End("MemoryError")
        super().check(name)


@known("exact-fit-refused")
class ExactNoRoom(Cache):
    def check(self, name):
        super().check(name)
        pinned = sum(map(self.size, self.pinned()))
        if pinned and self.size(name) + pinned == self.budget:
            raise End("RuntimeError")


@known("pinned-evicted")
class PinnedEvicted(Cache):
    def pinned(self):
        return []

    def victims(self, name):
        return list(self.held)


@known("pinned-evicted")
class PinnedEvictedOrRefused(Cache):
    def victims(self, name):
        return list(self.held)


@known("pinned-evicted")
class PinnedEvictedLast(Cache):
    def victims(self, name):
        return super().victims(name) + self.pinned()

    def check(self, name):
        if self.size(name) > self.budget:
            raise End("MemoryError")


@known("pinned-stops-eviction")
class PinnedStops(Cache):
    def victims(self, name):
        free = super().victims(name)
        return free[
            : next((at for at, one in enumerate(self.held) if one not in free[: at + 1]), 99)
        ]

    def evict(self, name):
        kept = dict(self.held)
        super().evict(name)
        if not self.fits(name):
            self.held = kept
            raise End("RuntimeError")


@known("pinned-stops-eviction")
class PinnedStopsLate(PinnedStops):
    def evict(self, name):
        Cache.evict(self, name)
        if not self.fits(name):
            raise End("RuntimeError")


@known("evicts-then-fails")
class EvictsThenPinned(Cache):
    def check(self, name):
        if self.size(name) > self.budget:
            raise End("MemoryError")

    def evict(self, name):
        super().evict(name)
        Cache.check(self, name)


@known("evicts-then-fails")
class EvictsThenTooLarge(Cache):
    def check(self, name):
        if self.size(name) <= self.budget:
            super().check(name)

    def evict(self, name):
        super().evict(name)
        Cache.check(self, name)


@known("evicts-then-fails")
class EvictsThenFails(EvictsThenPinned):
    def check(self, name):
        pass


@known("over-budget-let-in")
class TooLargeLetIn(Cache):
    def check(self, name):
        if self.size(name) <= self.budget:
            super().check(name)


@known("over-budget-let-in")
class NoRoomLetIn(Cache):
    def check(self, name):
        if self.size(name) > self.budget:
            raise End("MemoryError")


@known("over-budget-let-in")
class AllLetIn(Cache):
    def check(self, name):
        pass


@known("pins-before-the-budget")
class PinsFirst(Cache):
    def check(self, name):
        if self.pinned() and self.size(name) + sum(map(self.size, self.pinned())) > self.budget:
            raise End("RuntimeError")
        super().check(name)


@known("pins-are-a-set")
class PinSet(Cache):
    def leave(self, token, raised):
        self.unpin(self.names[token])


@known("pin-stays-after-raise")
class PinStays(Cache):
    def leave(self, token, raised):
        if not raised:
            super().leave(token, raised)


@known("pin-stays-after-raise")
class PinStaysAfterInterrupt(Cache):
    def leave(self, token, raised):
        if raised not in INTERRUPTS:
            super().leave(token, raised)


@known("never-unpinned")
class NeverUnpinned(Cache):
    def leave(self, token, raised):
        pass


@known("swallows-the-exception")
class Swallows(Cache):
    def leave(self, token, raised):
        super().leave(token, raised)
        return "swallowed" if raised else None


@known("swallows-the-exception")
class SwallowsExceptions(Cache):
    def leave(self, token, raised):
        super().leave(token, raised)
        return "swallowed" if raised not in ("", *INTERRUPTS) else None


@known("failed-entry-pins")
class FailedEntryPins(Cache):
    def enter(self, name, token, failure):
        self.pins[token] = name
        self.get(name, failure)


@known("failure-remembered")
class LoadFailureRemembered(Cache):
    def clear(self):
        super().clear()
        self.failed = set()

    def load(self, name, failure):
        if name in self.failed:
            raise End("the failure of before")
        try:
            super().load(name, failure)
        except End:
            self.failed.add(name)
            raise


@known("failure-remembered")
class ExceptionRemembered(LoadFailureRemembered):
    def load(self, name, failure):
        super().load(name, "")
        if failure:
            if failure not in INTERRUPTS:
                self.failed.add(name)
            raise End("load")


@known("failure-remembered")
class SizeRemembered(Cache):
    def clear(self):
        super().clear()
        self.large = set()

    def load(self, name, failure):
        if name in self.large:
            raise End("MemoryError")
        super().load(name, failure)
        if self.size(name) > self.budget:
            self.large.add(name)


@known("evicts-before-loading")
class EvictsBefore(Cache):
    def load(self, name, failure):
        while self.used() >= self.budget and self.victims(name):
            del self.held[self.victims(name)[0]]
        super().load(name, failure)


@known("evicts-before-loading")
class EvictsBeforeReloading(Cache):
    def clear(self):
        super().clear()
        self.sizes = set()

    def load(self, name, failure):
        if name in self.sizes:
            self.check(name)
            self.evict(name)
        super().load(name, failure)
        self.sizes.add(name)


@known("loads-twice")
class LoadsTwice(Cache):
    def load(self, name, failure):
        super().load(name, failure)
        self.loads.append(name)


@known("loads-twice")
class LoadsTwiceWhereItFits(Cache):
    def admit(self, name):
        super().admit(name)
        self.loads.append(name)


@known("loads-on-hits")
class LoadsOnHits(Cache):
    def get(self, name, failure):
        if name in self.held:
            self.load(name, failure)
        super().get(name, failure)


@known("elements-counted")
class Elements(Cache):
    def size(self, name):
        return sum(numel for _, numel, _, _ in self.adapters[name])


class Fixed(Cache):
    def size(self, name):
        return self.each * sum(numel for _, numel, _, _ in self.adapters[name])


@known("one-size-of-element")
class TwoBytes(Fixed):
    each = 2


@known("one-size-of-element")
class FourBytes(Fixed):
    each = 4


@known("shared-counted-once")
class StorageOnce(Cache):
    def size(self, name):
        return sum(n * dtype.itemsize for _, n, dtype, of in self.adapters[name] if not of)


@known("shared-counted-once")
class TensorOnce(Cache):
    def size(self, name):
        sizes = {(of or key, n): n * dtype.itemsize for key, n, dtype, of in self.adapters[name]}
        return sum(sizes.values())


@known("shared-counted-once")
class AddressOnce(Cache):
    def size(self, name):
        sizes = {of or key: n * dtype.itemsize for key, n, dtype, of in self.adapters[name]}
        return sum(sizes.values())
