"""A doubly linked list beside a dict."""

class Node:
    __slots__ = ("name", "tensors", "size", "pins", "before", "after")

    def __init__(self, name, tensors):
        self.name = name
        self.tensors = tensors
        self.size = 0 if tensors is None else sum(t.nbytes for t in tensors.values())
        self.pins = 0
        self.before = self.after = self


class AdapterCache:
    def __init__(self, budget_bytes, load):
        self.budget_bytes = budget_bytes
        self.load = load
        self.nodes = {}
        self.root = Node(None, None)
        self._used = 0

    def _unlink(self, node):
        node.before.after, node.after.before = node.after, node.before

    def _append(self, node):
        last = self.root.before
        node.before, node.after = last, self.root
        last.after = self.root.before = node

    @property
    def resident(self):
        names, node = [], self.root.after
        while node is not self.root:
            names.append(node.name)
            node = node.after
        return names

    @property
    def used_bytes(self):
        return self._used

    def _take(self, name):
        if name in self.nodes:
            node = self.nodes[name]
            self._unlink(node)
            self._append(node)
            return node
        node = Node(name, self.load(name))
        self._check(node)
        other = self.root.after
        while self._used + node.size > self.budget_bytes:
            following = other.after
            if not other.pins:
                self._unlink(other)
                self._used -= other.size
                del self.nodes[other.name]
            other = following
        self.nodes[name] = node
        self._append(node)
        self._used += node.size
        return node

    def _check(self, node):
        if node.size > self.budget_bytes:
            raise MemoryError(f"adapter {node.name}: {node.size} > {self.budget_bytes}")
        if node.size > self.budget_bytes - sum(n.size for n in self.nodes.values() if n.pins):
            raise RuntimeError(f"adapter {node.name}: no room")

    def get(self, name):
        return self._take(name).tensors

    def use(self, name):
        cache = self

        class Use:
            def __enter__(self):
                self.node = cache._take(name)
                self.node.pins += 1
                return self.node.tensors

            def __exit__(self, kind, error, traceback):
                self.node.pins -= 1
                if error is not None:
                    raise error

        return Use()
