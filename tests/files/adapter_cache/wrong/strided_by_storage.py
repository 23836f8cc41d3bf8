# wrong: Tensors that are not contiguous are counted by storage.
# bug: -
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor


def _size(tensors):
    return sum(t.numel() * t.element_size() if t.is_contiguous() else t.untyped_storage().nbytes() for t in tensors.values())


class AdapterCache:
    def __init__(self, budget_bytes: int, load: Callable[[str], dict[str, Tensor]]) -> None:
        self._budget = budget_bytes
        self._load = load
        self._held = OrderedDict()
        self._sizes = {}
        self._pins = Counter()

    @property
    def resident(self):
        return list(self._held)

    @property
    def used_bytes(self):
        return sum(self._sizes.values())

    def get(self, name: str) -> dict[str, Tensor]:
        if name in self._held:
            self._held.move_to_end(name)
            return self._held[name]
        tensors = self._load(name)
        size = _size(tensors)
        if size > self._budget:
            raise MemoryError(f"adapter {name!r} of {size} bytes is larger than the budget")
        victims, used = [], self.used_bytes
        for other in self._held:
            if used + size <= self._budget:
                break
            if not self._pins[other]:
                victims.append(other)
                used -= self._sizes[other]
        if used + size > self._budget:
            raise RuntimeError(f"no room for adapter {name!r}: the rest is pinned")
        for other in victims:
            del self._held[other], self._sizes[other]
        self._held[name] = tensors
        self._sizes[name] = size
        return tensors

    @contextmanager
    def use(self, name: str) -> Iterator[dict[str, Tensor]]:
        tensors = self.get(name)
        self._pins[name] += 1
        try:
            yield tensors
        finally:
            self._pins[name] -= 1
