"""use builds on an ExitStack; a lock guards the cache."""

import threading
from contextlib import ExitStack, contextmanager


class AdapterCache:
    def __init__(self, budget_bytes, load):
        self.__budget = budget_bytes
        self.__load = load
        self.__held = {}
        self.__users = {}
        self.__lock = threading.RLock()

    @property
    def resident(self):
        with self.__lock:
            return [name for name in self.__held]

    @property
    def used_bytes(self):
        with self.__lock:
            return sum(size for _, size in self.__held.values())

    def get(self, name):
        with self.__lock:
            if name not in self.__held:
                self.__admit(name, self.__load(name))
            self.__held[name] = self.__held.pop(name)
            return self.__held[name][0]

    def __admit(self, name, tensors):
        size = sum(map(lambda t: t.nelement() * t.element_size(), tensors.values()))
        if self.__budget < size:
            raise MemoryError(f"{name}: larger than the whole budget")
        kept = {n: entry for n, entry in self.__held.items() if self.__users.get(n)}
        if sum(entry[1] for entry in kept.values()) + size > self.__budget:
            raise RuntimeError(f"{name}: pinned adapters are in the way")
        idle = iter([n for n in self.__held if n not in kept])
        while self.used_bytes + size > self.__budget:
            self.__held.pop(next(idle))
        self.__held[name] = (tensors, size)

    def __release(self, name):
        self.__users[name] -= 1
        if self.__users[name] == 0:
            del self.__users[name]

    @contextmanager
    def use(self, name):
        with ExitStack() as stack:
            tensors = self.get(name)
            self.__users[name] = self.__users.get(name, 0) + 1
            stack.callback(self.__release, name)
            yield tensors
