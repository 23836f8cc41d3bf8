from statistics import NormalDist
import numpy as np


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        rng = rng if rng is not None else np.random.default_rng(np.random.SeedSequence())
        u = 1.0 - rng.random((r, d_in))
        self.A = init_scale * np.vectorize(NormalDist().inv_cdf, otypes=[float])(
            np.clip(u, 1e-16, 1 - 1e-16)
        )
        self.B = np.zeros((d_out, r), order="F")
        self.scale = np.float64(alpha if alpha is not None else r) / r

    def forward(self, x):
        z = x @ self.A.T
        return (self.scale * (z @ self.B.T), (x, z))

    def backward(self, grad_output, cache):
        x, z = cache
        gz = self.scale * (grad_output @ self.B)
        self.dA = gz.T @ x / len(x)
        self.dB = self.scale * (grad_output.T @ z) / len(x)
        self.dA.flags.writeable = self.dB.flags.writeable = False
        return gz @ self.A

    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self):
        return self.scale * (self.B @ self.A)
