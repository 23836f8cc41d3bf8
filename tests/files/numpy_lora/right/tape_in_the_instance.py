import itertools
import numpy as np


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        rng = np.random.default_rng() if rng is None else rng
        self.scale = (r if alpha is None else alpha) / r
        self.A = rng.normal(0.0, init_scale, (r, d_in))
        self.B = np.zeros((d_out, r))
        self._tape = {}
        self._count = itertools.count()

    def forward(self, x):
        token = next(self._count)
        self._tape[token] = np.array(x, copy=True)
        return (self.scale * (x @ self.A.T @ self.B.T), token)

    def backward(self, grad_output, cache):
        x = self._tape[cache]
        n = x.shape[0]
        self.dA = self.scale / n * (self.B.T @ grad_output.T @ x)
        self.dB = self.scale / n * (grad_output.T @ x @ self.A.T)
        return self.scale * (grad_output @ (self.B @ self.A))

    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self):
        return self.scale * (self.B @ self.A)
