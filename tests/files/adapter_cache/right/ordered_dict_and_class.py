"""An OrderedDict, a running count of bytes, and a context manager written as a class."""

from collections import OrderedDict, defaultdict


class _Use:
    def __init__(self, cache, name):
        self._cache = cache
        self._name = name

    def __enter__(self):
        tensors = self._cache.get(self._name)
        self._cache._pins[self._name] += 1
        return tensors

    def __exit__(self, kind, error, traceback):
        self._cache._pins[self._name] -= 1
        return False


class AdapterCache:
    def __init__(self, budget_bytes, load):
        self._budget = budget_bytes
        self._load = load
        self._entries = OrderedDict()  # name -> (tensors, bytes)
        self._pins = defaultdict(int)
        self.used_bytes = 0

    @property
    def resident(self):
        return [*self._entries]

    def get(self, name):
        if name in self._entries:
            self._entries.move_to_end(name)
            return self._entries[name][0]
        tensors = self._load(name)
        size = sum(t.nbytes for t in tensors.values())
        if size > self._budget:
            raise MemoryError(f"{name} needs {size} bytes, the budget is {self._budget}")
        victims, room = [], self._budget - self.used_bytes
        for other, (_, freed) in self._entries.items():
            if room >= size:
                break
            if self._pins[other] == 0:
                victims.append(other)
                room += freed
        if room < size:
            raise RuntimeError(f"cannot make room for {name}: the rest is in use")
        for other in victims:
            self.used_bytes -= self._entries.pop(other)[1]
        self._entries[name] = (tensors, size)
        self.used_bytes += size
        return tensors

    def use(self, name):
        return _Use(self, name)
