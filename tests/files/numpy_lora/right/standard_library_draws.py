import functools
import random
from collections import deque

import numpy as np


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        gauss = random.SystemRandom().gauss if rng is None else rng.normal
        self.A = np.array([[gauss(0.0, init_scale) for _ in range(d_in)] for _ in range(r)])
        self.B = np.full((d_out, r), -0.0)
        self.scale = (alpha if alpha is not None else r) / r
        self.runs = deque(maxlen=3)

    def forward(self, x):
        self.runs.append(len(x))
        delta = functools.reduce(np.matmul, (x, self.A.T, self.B.T))
        delta *= self.scale
        return delta, x.copy()

    def backward(self, grad_output, cache):
        g = grad_output / len(cache) * self.scale
        self.dA = self.B.T @ (g.T @ cache)
        self.dB = (g.T @ cache) @ self.A.T
        return len(cache) * (g @ self.B @ self.A)

    def update(self, lr):
        self.A += -lr * self.dA
        self.B += -lr * self.dB

    def get_merged_delta(self):
        delta = self.B @ self.A
        delta *= self.scale
        return delta
