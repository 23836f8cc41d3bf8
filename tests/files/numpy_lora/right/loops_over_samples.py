import numpy as np


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        if rng is None:
            rng = np.random.default_rng()
        if alpha is None:
            alpha = r
        self.scale = alpha / r
        self.A = rng.normal(0.0, init_scale, size=(r, d_in))
        self.B = np.zeros((d_out, r))

    def forward(self, x):
        z = x @ self.A.T
        delta = self.scale * (z @ self.B.T)
        return delta, (x, z)

    def backward(self, grad_output, cache):
        x, z = cache
        n = x.shape[0]
        dA, dB, grad_x = [], [], []
        for x_i, z_i, g in zip(x, z, grad_output):
            back = self.scale * self.B.T @ g
            dA.append(np.outer(back, x_i))
            dB.append(self.scale * np.outer(g, z_i))
            grad_x.append(self.A.T @ back)
        self.dA, self.dB = np.mean(dA, axis=0), sum(dB) / n
        return np.stack(grad_x)

    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self):
        return self.scale * (self.B @ self.A)
