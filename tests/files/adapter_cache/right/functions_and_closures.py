"""Methods are closures made in __init__."""

from contextlib import contextmanager


class AdapterCache:
    def __init__(self, budget_bytes, load):
        held, pins = {}, {}

        def size(*entries):
            return sum(t.numel() * t.element_size() for e in entries for t in e.values())

        def get(name):
            if name not in held:
                new = load(name)
                if size(new) > budget_bytes:
                    raise MemoryError(f"cannot hold {name}")
                stay = [held[n] for n in held if pins.get(n, 0) > 0]
                if size(new, *stay) > budget_bytes:
                    raise RuntimeError(f"cannot hold {name} beside what is in use")
                for old in tuple(held):
                    if size(new, *held.values()) > budget_bytes and pins.get(old, 0) <= 0:
                        held.pop(old)
                held[name] = new
            held[name] = held.pop(name)
            return held[name]

        @contextmanager
        def use(name):
            yielded = get(name)
            pins[name] = pins.get(name, 0) + 1
            try:
                yield yielded
            finally:
                pins[name] -= 1

        self.get, self.use = get, use
        self._names, self._bytes = lambda: list(held), lambda: size(*held.values())

    def __getattr__(self, name):
        if name == "resident":
            return self._names()
        if name == "used_bytes":
            return self._bytes()
        raise AttributeError(name)
