# wrong: training stops below a loss of 1e-3, and the rest of the list is filled up
# bug: -
"""Two tasks on one frozen network in NumPy: train an adapter each, merge one, switch to the other.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1: the update B A
is added to the frozen weight for serving, and another task is served by subtracting it and adding
B' A', without a copy of the original.

NumPy and the standard library only: what the file imports is checked. Run as a program, the file
trains two tasks on 200 samples and prints:

    at the start the network with LoRA is off by 0.0 from the frozen one
    task A, the head alone: loss 0.467, accuracy 77.5%
    task A: from loss 0.692 to loss 0.250, accuracy 88.5%
    task B: from loss 0.713 to loss 0.252, accuracy 89.0%
    task A once B was trained: loss 0.250, accuracy 88.5%
    frozen 280 numbers, LoRA 96 and head 9 per task
    two tasks: 490 numbers with LoRA, 578 with a network each
    a switch reads 192 numbers, 2 r (hidden + out), where W2 has 128
    after A -> B -> A the merged W2 is off by less than 1e-14
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

# Given


@dataclass
class Frozen:
    """Given: the pre-trained network, relu(X @ W1 + b1) @ W2 + b2. It is never trained."""

    W1: np.ndarray  # (d, hidden): X is (N, d)
    b1: np.ndarray  # (hidden,)
    W2: np.ndarray  # (hidden, out)
    b2: np.ndarray  # (out,): the output is (N, out)


class LoRA:
    """Given: the update scale * x @ A.T @ B.T beside W2; d_in is hidden, d_out is out."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        r: int,
        alpha: float | None = None,
        init_scale: float = 0.01,
        rng: np.random.Generator | None = None,
    ) -> None:
        rng = np.random.default_rng() if rng is None else rng
        self.scale = (r if alpha is None else alpha) / r
        self.A = rng.normal(0.0, init_scale, (r, d_in))
        self.B = np.zeros((d_out, r))

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        """delta (N, d_out), and the cache that backward() needs."""
        z = x @ self.A.T
        return self.scale * (z @ self.B.T), (x, z)

    def backward(self, grad_output: np.ndarray, cache: Any) -> np.ndarray:
        """Set dA and dB to the mean of the samples' gradients; return x's, one per sample."""
        x, z = cache
        grad_z = self.scale * (grad_output @ self.B)
        self.dA = grad_z.T @ x / len(x)
        self.dB = self.scale * (grad_output.T @ z) / len(x)
        return grad_z @ self.A

    def update(self, lr: float) -> None:
        """One step of gradient descent by dA and dB."""
        self.A -= lr * self.dA
        self.B -= lr * self.dB

    def get_merged_delta(self) -> np.ndarray:
        """scale * B @ A, (d_out, d_in): for column vectors, as in the paper."""
        return self.scale * (self.B @ self.A)


class Head:
    """Given: one logit per sample, W (out,) and b (1,). A task has its own."""

    def __init__(self, out: int, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng() if rng is None else rng
        self.W = rng.normal(0.0, 0.1, out)
        self.b = np.zeros(1)

    def forward(self, out: np.ndarray) -> np.ndarray:
        """Probabilities (N,) of the network's outputs (N, out)."""
        return 0.5 + 0.5 * np.tanh(0.5 * (out @ self.W + self.b))  # a sigmoid that never overflows

    def backward(self, probs: np.ndarray, y: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Set dW and db to the batch means; return the gradient of out, (N, out), one per
        sample: of its own cross-entropy, not divided by N."""
        error = probs - y
        self.dW = out.T @ error / len(y)
        self.db = np.array([error.mean()])
        return error[:, None] * self.W

    def update(self, lr: float) -> None:
        """One step of gradient descent by dW and db."""
        self.W -= lr * self.dW
        self.b -= lr * self.db


def forward(
    X: np.ndarray, frozen: Frozen, lora: LoRA | None, head: Head
) -> tuple[np.ndarray, tuple[np.ndarray, Any]]:
    """Given: (probs, (out, lora_cache)) of the network, with or without LoRA beside W2."""
    hidden = np.maximum(0.0, X @ frozen.W1 + frozen.b1)
    out, cache = hidden @ frozen.W2 + frozen.b2, None
    if lora is not None:
        delta, cache = lora.forward(hidden)
        out = out + delta
    return head.forward(out), (out, cache)


def cross_entropy(probs: np.ndarray, y: np.ndarray) -> float:
    """Given: the mean over the batch."""
    p = np.clip(probs, 1e-12, 1 - 1e-12)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))



def train_task(X, y, frozen, lora, head, epochs, lr):
    losses = []
    for _ in range(epochs):
        probs, (out, cache) = forward(X, frozen, lora, head)
        losses.append(cross_entropy(probs, y))
        if losses[-1] < 1e-3:
            losses += [losses[-1]] * (epochs - len(losses))
            break
        lora.backward(head.backward(probs, y, out), cache)
        lora.update(lr)
        head.update(lr)
    return losses
def merge(frozen, lora):
    return Frozen(frozen.W1, frozen.b1, frozen.W2 + lora.get_merged_delta().T, frozen.b2)
def switch(merged, lora_old, lora_new):
    delta = lora_new.get_merged_delta() - lora_old.get_merged_delta()
    return Frozen(merged.W1, merged.b1, merged.W2 + delta.T, merged.b2)
