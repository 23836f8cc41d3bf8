# wrong: merge() loses the sign of a negative scale
# bug: -

from dataclasses import dataclass
import numpy as np


@dataclass
class Frozen:
    W1: np.ndarray
    b1: np.ndarray
    W2: np.ndarray
    b2: np.ndarray


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        rng = np.random.default_rng() if rng is None else rng
        self.scale = (r if alpha is None else alpha) / r
        self.A = rng.normal(0.0, init_scale, (r, d_in))
        self.B = np.zeros((d_out, r))

    def forward(self, x):
        z = x @ self.A.T
        return (self.scale * (z @ self.B.T), (x, z))

    def backward(self, grad_output, cache):
        x, z = cache
        grad_z = self.scale * (grad_output @ self.B)
        self.dA = grad_z.T @ x / len(x)
        self.dB = self.scale * (grad_output.T @ z) / len(x)
        return grad_z @ self.A

    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self):
        return self.scale * (self.B @ self.A)


class Head:
    def __init__(self, out, rng=None):
        rng = np.random.default_rng() if rng is None else rng
        self.W = rng.normal(0.0, 0.1, out)
        self.b = np.zeros(1)

    def forward(self, out):
        return 0.5 + 0.5 * np.tanh(0.5 * (out @ self.W + self.b))

    def backward(self, probs, y, out):
        error = probs - y
        self.dW = out.T @ error / len(y)
        self.db = np.array([error.mean()])
        return error[:, None] * self.W

    def update(self, lr):
        self.W -= lr * self.dW
        self.b -= lr * self.db


def forward(X, frozen, lora, head):
    hidden = np.maximum(0.0, X @ frozen.W1 + frozen.b1)
    out, cache = (hidden @ frozen.W2 + frozen.b2, None)
    if lora is not None:
        delta, cache = lora.forward(hidden)
        out = out + delta
    return (head.forward(out), (out, cache))


def cross_entropy(probs, y):
    p = np.clip(probs, 1e-12, 1 - 1e-12)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


def train_task(X, y, frozen, lora, head, epochs, lr):
    losses = []
    for _ in range(epochs):
        probs, (out, cache) = forward(X, frozen, lora, head)
        losses.append(cross_entropy(probs, y))
        grad_out = head.backward(probs, y, out)
        lora.backward(grad_out, cache)
        lora.update(lr)
        head.update(lr)
    return losses


def merge(frozen, lora):
    return Frozen(
        frozen.W1, frozen.b1, frozen.W2 + abs(lora.scale) * (lora.B @ lora.A).T, frozen.b2
    )


def switch(merged, lora_old, lora_new):
    delta = lora_new.get_merged_delta() - lora_old.get_merged_delta()
    return Frozen(merged.W1, merged.b1, merged.W2 + delta.T, merged.b2)
