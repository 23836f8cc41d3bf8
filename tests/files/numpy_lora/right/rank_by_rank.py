import numpy as np


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        rng = np.random.default_rng() if rng is None else rng
        self.scale = (r if alpha is None else alpha) / r
        self.A = rng.normal(0.0, init_scale, (r, d_in))
        self.B = np.zeros((d_out, r))

    def forward(self, x):
        cache = np.empty(2, dtype=object)
        cache[0], cache[1] = (x, [x @ a for a in self.A])
        return (self.scale * sum((np.outer(z, b) for z, b in zip(cache[1], self.B.T))), cache)

    def backward(self, grad_output, cache):
        x, zs = cache
        self.dA = np.stack([self.scale * (x.T @ (grad_output @ b)) / len(x) for b in self.B.T])
        self.dB = np.stack([self.scale * (z @ grad_output) / len(x) for z in zs], axis=1)
        return self.scale * sum((np.outer(grad_output @ b, a) for b, a in zip(self.B.T, self.A)))

    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self):
        return self.scale * np.add.reduce([np.outer(b, a) for b, a in zip(self.B.T, self.A)])
