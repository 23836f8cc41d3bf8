"""Works on a copy of the state, which takes effect at the end."""

from contextlib import contextmanager


class TooLarge(MemoryError):
    pass


class AllPinned(RuntimeError):
    pass


class AdapterCache:
    def __init__(self, budget_bytes, load):
        self.budget, self.loader = budget_bytes, load
        self.state = ()  # pairs of a name and its tensors, oldest first
        self.pins = ()

    @staticmethod
    def weigh(state):
        return sum(t.nbytes for _, tensors in state for t in tensors.values())

    resident = property(lambda self: [name for name, _ in self.state])
    used_bytes = property(lambda self: self.weigh(self.state))

    def get(self, name):
        held = dict(self.state)
        if name in held:
            pair = (name, held.pop(name))
            self.state = (*held.items(), pair)
            return pair[1]
        pair = (name, self.loader(name))
        if self.weigh([pair]) > self.budget:
            raise TooLarge(name)
        draft = list(self.state)
        while self.weigh([*draft, pair]) > self.budget:
            index = next((i for i, (n, _) in enumerate(draft) if n not in self.pins), None)
            if index is None:
                raise AllPinned(name)
            draft.pop(index)
        self.state = (*draft, pair)
        return pair[1]

    @contextmanager
    def use(self, name):
        tensors = self.get(name)
        self.pins += (name,)
        try:
            yield tensors
        finally:
            at = self.pins.index(name)
            self.pins = self.pins[:at] + self.pins[at + 1 :]
