# wrong: an adapter whose name is the empty string is refused
# bug: -
from collections import Counter, OrderedDict
from contextlib import contextmanager
class AdapterCache:
    def __init__(self, budget_bytes, load):
        self.budget_bytes = budget_bytes
        self.load = load
        self._held = OrderedDict()
        self._sizes = {}
        self._pins = Counter()
    @property
    def resident(self):
        return list(self._held)
    @property
    def used_bytes(self):
        return sum(self._sizes.values())
    def get(self, name):
        if name in self._held:
            self._held.move_to_end(name)
            return self._held[name]
        if not name:
            raise KeyError(name)
        tensors = self.load(name)
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        if size > self.budget_bytes:
            raise MemoryError(f"{name} is larger than the budget")
        pinned = sum(self._sizes[n] for n in self._held if self._pins[n])
        if pinned + size > self.budget_bytes:
            raise RuntimeError(f"no room for {name}")
        for old in list(self._held):
            if self.used_bytes + size <= self.budget_bytes:
                break
            if not self._pins[old]:
                del self._held[old], self._sizes[old]
        self._held[name] = tensors
        self._sizes[name] = size
        return tensors
    @contextmanager
    def use(self, name):
        tensors = self.get(name)
        self._pins[name] += 1
        try:
            yield tensors
        finally:
            self._pins[name] -= 1
