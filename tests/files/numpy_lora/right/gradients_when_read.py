from functools import partial
import numpy as np


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        rng = np.random.default_rng() if rng is None else rng
        self.scale = (r if alpha is None else alpha) / r
        self.A = rng.normal(0.0, init_scale, (r, d_in))
        self.B = np.zeros((d_out, r))
        self._make = None

    def forward(self, x):
        return (self.scale * x @ self.A.T @ self.B.T, {"x": x})

    def backward(self, grad_output, cache):
        x, b, a, g = (cache["x"].copy(), self.B.copy(), self.A.copy(), grad_output.copy())
        self._make = {
            "A": partial(lambda: self.scale * (g @ b).T @ x / len(x)),
            "B": partial(lambda: self.scale * g.T @ (x @ a.T) / len(x)),
        }
        return self.scale * g @ b @ a

    @property
    def dA(self):
        return self._make["A"]()

    @property
    def dB(self):
        return self._make["B"]()

    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self):
        return self.scale * (self.B @ self.A)
