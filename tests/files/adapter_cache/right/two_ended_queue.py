"""A deque of names; a ticket of its own for each block."""

import collections
import contextlib


class AdapterCache:
    def __init__(self, budget_bytes, load):
        self.limit = budget_bytes
        self.fetch = load
        self.order = collections.deque()
        self.tensors = {}
        self.tickets = {}

    @property
    def resident(self):
        return list(self.order)

    @property
    def used_bytes(self):
        return sum(self.weight(self.tensors[name]) for name in self.order)

    @staticmethod
    def weight(tensors):
        return int(sum(t.untyped_storage().element_size() * 0 + t.nbytes for t in tensors.values()))

    def get(self, name):
        try:
            tensors = self.tensors[name]
        except KeyError:
            tensors = None
        if tensors is None:
            tensors = self.fetch(name)
            self.make_room(name, self.weight(tensors))
            self.tensors[name] = tensors
        else:
            self.order.remove(name)
        self.order.append(name)
        return tensors

    def make_room(self, name, weight):
        if not weight <= self.limit:
            raise MemoryError(f"{name} can never fit")
        pinned = set(self.tickets.values())
        if not weight + sum(self.weight(self.tensors[p]) for p in pinned) <= self.limit:
            raise RuntimeError(f"{name} does not fit now")
        skipped = []
        while self.order and self.weight_of(skipped) + weight > self.limit:
            oldest = self.order.popleft()
            if oldest in pinned:
                skipped.append(oldest)
            else:
                del self.tensors[oldest]
        self.order.extendleft(reversed(skipped))

    def weight_of(self, skipped):
        return sum(self.weight(self.tensors[n]) for n in [*skipped, *self.order])

    @contextlib.contextmanager
    def use(self, name):
        tensors = self.get(name)
        ticket = object()
        self.tickets[ticket] = name
        try:
            yield tensors
        finally:
            del self.tickets[ticket]
