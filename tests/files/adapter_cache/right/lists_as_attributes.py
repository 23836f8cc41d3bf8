"""resident is an attribute, changed in place; pins are a list of names."""

from contextlib import contextmanager


class AdapterCache:
    def __init__(self, budget_bytes: int, load):
        self.budget_bytes = budget_bytes
        self.load = load
        self.resident: list[str] = []
        self.used_bytes: int = 0
        self.tensors = {}
        self.in_use: list[str] = []

    def size(self, tensors) -> int:
        total = 0
        for tensor in tensors.values():
            total += tensor.numel() * tensor.element_size()
        return total

    def get(self, name: str):
        if name not in self.tensors:
            self._bring_in(name)
        else:
            self.resident.remove(name)
            self.resident.append(name)
        return self.tensors[name]

    def _bring_in(self, name):
        loaded = self.load(name)
        size = self.size(loaded)
        if size > self.budget_bytes:
            raise MemoryError("too large: " + name)
        locked = sum(self.size(self.tensors[other]) for other in set(self.in_use))
        if locked + size > self.budget_bytes:
            raise RuntimeError("everything else is pinned, no room for " + name)
        position = 0
        while self.used_bytes + size > self.budget_bytes:
            other = self.resident[position]
            if other in self.in_use:
                position += 1
                continue
            del self.resident[position]
            self.used_bytes -= self.size(self.tensors.pop(other))
        self.tensors[name] = loaded
        self.resident.append(name)
        self.used_bytes += size

    @contextmanager
    def use(self, name: str):
        tensors = self.get(name)
        self.in_use.append(name)
        try:
            yield tensors
        except BaseException:
            self.in_use.remove(name)
            raise
        else:
            self.in_use.remove(name)
