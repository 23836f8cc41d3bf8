import numpy as np


class LoRA:
    """np.matrix, of the old days."""

    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        rng = np.random.default_rng() if rng is None else rng
        self.scale = (r if alpha is None else alpha) / r
        self.A = np.asmatrix(rng.normal(0, init_scale, (r, d_in)))
        self.B = np.asmatrix(np.zeros((d_out, r)))

    def forward(self, x):
        z = x * self.A.T
        return self.scale * z * self.B.T, (np.asmatrix(x), z)

    def backward(self, grad_output, cache):
        x, z = cache
        g = np.asmatrix(grad_output) * self.scale
        self.dA = (g * self.B).T * x / len(x)
        self.dB = g.T * z / len(x)
        return g * self.B * self.A

    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self):
        return self.scale * self.B * self.A
