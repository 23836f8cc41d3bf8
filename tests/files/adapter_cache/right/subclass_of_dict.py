"""The cache is a dict of its own."""

from collections import Counter
from contextlib import contextmanager


class AdapterCache(dict):
    def __init__(self, budget_bytes, load):
        super().__init__()
        self.budget_bytes, self.load, self.pins = budget_bytes, load, Counter()

    @property
    def resident(self):
        return list(self.keys())

    @property
    def used_bytes(self):
        return self.bytes_of(*self)

    def bytes_of(self, *names):
        return sum(t.numel() * t.element_size() for n in names for t in self[n].values())

    def __missing__(self, name):
        tensors = self.load(name)
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        if size > self.budget_bytes:
            raise MemoryError(f"adapter {name!r} is larger than the budget")
        if size + self.bytes_of(*(n for n in self if n in self.pins)) > self.budget_bytes:
            raise RuntimeError(f"adapter {name!r}: all other memory is pinned")
        for other in [n for n in self if n not in self.pins]:
            if self.used_bytes + size <= self.budget_bytes:
                break
            del self[other]
        return tensors

    def get(self, name):
        tensors = self[name]
        self.pop(name, None)
        self[name] = tensors
        return tensors

    @contextmanager
    def use(self, name):
        tensors = self.get(name)
        self.pins.update([name])
        try:
            yield tensors
        finally:
            self.pins.subtract([name])
            self.pins += Counter()  # drops what is zero
