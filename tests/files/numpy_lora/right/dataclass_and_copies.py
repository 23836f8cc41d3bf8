from dataclasses import dataclass, field

import numpy as np


@dataclass
class LoRA:
    d_in: int
    d_out: int
    r: int
    alpha: float | None = None
    init_scale: float = 0.01
    rng: np.random.Generator | None = None
    A: np.ndarray = field(init=False)
    B: np.ndarray = field(init=False)
    dA: np.ndarray | None = field(init=False, default=None)
    dB: np.ndarray | None = field(init=False, default=None)

    def __post_init__(self):
        if self.alpha is None:
            self.alpha = self.r
        rng = self.rng or np.random.default_rng()
        self.A = np.array([rng.normal(0, self.init_scale, self.d_in) for _ in range(self.r)])
        self.B = np.array([[0.0] * self.r for _ in range(self.d_out)])

    @property
    def scale(self):
        return self.alpha / self.r

    def forward(self, x):
        x = np.array(x)
        return x @ self.get_merged_delta().T, {"x": x, "n": len(x)}

    def backward(self, grad_output, cache):
        # Through the full gradient of the weight: dW = g^T x, then dA = s B^T dW, dB = s dW A^T.
        dW = grad_output.T @ cache["x"] / cache["n"]
        self.dA = self.scale * self.B.T @ dW
        self.dB = self.scale * dW @ self.A.T
        return grad_output @ self.get_merged_delta()

    def update(self, lr):
        self.A = self.A - lr * self.dA
        self.B = self.B - lr * self.dB
        self.dA = self.dB = None

    def get_merged_delta(self):
        return self.scale * (self.B @ self.A)
