import numpy as np


class LoRA:
    """As in the paper: columns. The batch is turned on its way in and out."""

    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        rng = rng if rng is not None else np.random.RandomState()
        self.A = np.asfortranarray(rng.normal(scale=init_scale, size=(d_in, r)).T)
        self.B = np.zeros((r, d_out)).T
        self.s = (alpha if alpha is not None else r) / r

    def forward(self, x):
        X = x.T
        return (self.s * self.B @ (self.A @ X)).T, [X]

    def backward(self, grad_output, cache):
        X, G = cache[0], self.s * grad_output.T
        N = X.shape[-1]
        self.dB = G @ (self.A @ X).T / N
        self.dA = self.B.T @ G @ X.T / N
        return (self.A.T @ (self.B.T @ G)).T

    def update(self, lr):
        for name in "AB":
            array = getattr(self, name)
            array -= lr * getattr(self, "d" + name)

    def get_merged_delta(self):
        return self.s * self.B @ self.A
