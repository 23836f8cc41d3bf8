"""Evicts first, and undoes it where that was not enough."""

from collections import Counter
from contextlib import contextmanager


class AdapterCache:
    def __init__(self, budget_bytes, load):
        self.budget_bytes, self.load = budget_bytes, load
        self.entries, self.pins = {}, Counter()

    @property
    def resident(self) -> list:
        return list(self.entries)

    @property
    def used_bytes(self) -> int:
        return sum(size for size, _ in self.entries.values())

    def get(self, name):
        before = dict(self.entries)
        try:
            if name in self.entries:
                entry = self.entries.pop(name)
            else:
                entry = self._admit(name)
            self.entries[name] = entry
            return entry[1]
        except BaseException:
            self.entries = before
            raise

    def _admit(self, name):
        tensors = self.load(name)
        size = sum(t.nbytes for t in tensors.values())
        for other in self.resident:
            if self.used_bytes + size <= self.budget_bytes:
                break
            if self.pins[other] < 1:
                del self.entries[other]
        if size > self.budget_bytes:
            raise MemoryError(f"the budget is too small for {name}")
        if self.used_bytes + size > self.budget_bytes:
            raise RuntimeError(f"too much is pinned for {name}")
        return size, tensors

    @contextmanager
    def use(self, name):
        tensors = self.get(name)
        try:
            self.pins[name] += 1
            yield dict(tensors)
        finally:
            self.pins[name] -= 1
