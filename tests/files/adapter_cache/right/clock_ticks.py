"""Each entry knows when it was used last; the order is found by sorting."""

import itertools
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Entry:
    tensors: dict
    size: int
    last_used: int = 0
    pins: int = 0


@dataclass
class AdapterCache:
    budget_bytes: int
    load: Any
    entries: dict = field(default_factory=dict)
    clock: Any = field(default_factory=itertools.count)

    def _by_age(self):
        return sorted(self.entries, key=lambda name: self.entries[name].last_used)

    @property
    def resident(self):
        return self._by_age()

    @property
    def used_bytes(self):
        return sum(entry.size for entry in self.entries.values())

    def _entry(self, name):
        entry = self.entries.get(name)
        if entry is None:
            tensors = self.load(name)
            entry = Entry(tensors, sum(t.numel() * t.dtype.itemsize for t in tensors.values()))
            if entry.size > self.budget_bytes:
                raise MemoryError(f"{entry.size} bytes of {name!r} exceed {self.budget_bytes}")
            free = [n for n in self._by_age() if not self.entries[n].pins]
            over = self.used_bytes + entry.size - self.budget_bytes
            if over > sum(self.entries[n].size for n in free):
                raise RuntimeError(f"{name!r} has to wait: too much is pinned")
            while over > 0:
                over -= self.entries.pop(free.pop(0)).size
            self.entries[name] = entry
        entry.last_used = next(self.clock)
        return entry

    def get(self, name):
        return dict(self._entry(name).tensors)

    def use(self, name):
        return Using(self, name)


class Using(AbstractContextManager):
    def __init__(self, cache, name):
        self.cache, self.name, self.entry = cache, name, None

    def __enter__(self):
        self.entry = self.cache._entry(self.name)
        self.entry.pins += 1
        return self.entry.tensors

    def __exit__(self, *exc):
        self.entry.pins -= 1
