# wrong: The name is listed before load returns, and stays if it raises.
# bug: -
"""A cache of adapters in a memory budget.

Sheng et al. 2023, "S-LoRA: Serving Thousands of Concurrent LoRA Adapters", section 5: all adapters
are kept in main memory, and those that the running batch needs are fetched into a GPU memory that
holds only some of them.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor


class AdapterCache:
    """Holds the tensors of as many adapters as fit in budget_bytes.

    load: gives the tensors of an adapter, by name; called once for each miss, also for one that
    then fails, and before anything is evicted, as the size is not known earlier.

    The bytes of an adapter are the sum of numel * element_size over its keys; a tensor under two
    keys, or a view of it, counts twice. Exactly the budget fits.

    Attributes (or properties):
        resident      list of the names that are held, least to most recently used, pinned ones in
                      their place
        used_bytes    int, the bytes of all of them
    """

    def __init__(self, budget_bytes: int, load: Callable[[str], dict[str, Tensor]]) -> None:
        self.budget_bytes = budget_bytes
        self.load = load
        self.held: dict[str, dict[str, Tensor]] = {}  # least recently used first
        self.pins: Counter[str] = Counter()

    @property
    def resident(self) -> list[str]:
        return list(self.held)

    @property
    def used_bytes(self) -> int:
        return sum(map(size_bytes, self.held.values()))

    def get(self, name: str) -> dict[str, Tensor]:
        """The tensors of an adapter, which is the most recently used one then.

        A hit does not call load. On a miss the adapter is loaded, and others that are not pinned
        are evicted, least recently used first, until it fits and no further, even where a later
        one alone would have made room. The cache keeps nothing of what it evicts.

        Raises MemoryError if it is larger than the budget, whatever is pinned, RuntimeError if
        there is no room because the rest is pinned, both naming the adapter; and what load raises,
        as it is. In all three the cache is as before, the order included, and a later call tries
        again.
        """
        if name in self.held:
            tensors = self.held.pop(name)
        else:
            self.held[name] = {}
            tensors = self.load(name)
            self.held.pop(name)
            self.make_room(name, size_bytes(tensors))
        self.held[name] = tensors
        return tensors

    @contextmanager
    def use(self, name: str) -> Iterator[dict[str, Tensor]]:
        """Pin an adapter while inside: `with cache.use(name) as tensors: ...`.

        Entering is a get, with its errors; neither calling use() alone nor leaving counts as a
        use. An adapter may be in use several times at once, left in any order: it stays pinned
        until the last one is left. A block that raises is left too, and its exception passes. No
        pin remains where entering fails.
        """
        tensors = self.get(name)
        self.pins[name] += 1
        try:
            yield tensors
        finally:
            self.pins[name] -= 1

    def make_room(self, name: str, needed: int) -> None:
        """Evict until so many bytes fit; all checks come before the first eviction."""
        budget = self.budget_bytes
        if needed > budget:
            raise MemoryError(f"adapter {name!r} takes {needed} bytes of a budget of {budget}")
        pinned = sum(size_bytes(self.held[other]) for other in self.held if self.pins[other])
        if pinned + needed > budget:
            raise RuntimeError(f"no room for adapter {name!r}: {pinned} bytes are pinned")
        for other in self.resident:
            if self.used_bytes + needed <= budget:
                break
            if not self.pins[other]:
                del self.held[other]


def size_bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
