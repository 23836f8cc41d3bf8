"""A low-rank update in NumPy, its backward pass written by hand.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1, equation 3: the
update of a frozen weight is alpha / r * B A, with A Gaussian and B zero at the start. The paper
writes column vectors; here a batch holds one row per sample, so that the branch is x A^T B^T.

NumPy and the standard library only: what the file imports is checked.
"""

from typing import Any

import numpy as np


class LoRA:
    """The trainable branch beside a frozen weight: delta = scale * x @ A.T @ B.T.

    Attributes, all float64:
        A     (r, d_in)
        B     (d_out, r)
        dA    the gradient of A, from the last backward()
        dB    the gradient of B, from the last backward()

    Every method uses A and B as they are at that moment; they may be changed in place.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        r: int,
        alpha: float | None = None,
        init_scale: float = 0.01,
        rng: np.random.Generator | None = None,
    ) -> None:
        """Start A as Gaussian noise of standard deviation init_scale, and B at zero.

        scale = alpha / r, with alpha = r where none is given; 0 is given, and scale is then 0.
        rng draws A: the same state gives the same A, and moves on by it. Without one A is
        different every time (NumPy's global state will do).
        """
        raise NotImplementedError

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return (delta, cache).

        x: float64 (N, d_in), N >= 1, left unchanged.
        delta: float64 (N, d_out). cache: whatever backward() needs, of any kind.
        """
        raise NotImplementedError

    def backward(self, grad_output: np.ndarray, cache: Any) -> np.ndarray:
        """Set dA and dB, and return the gradient of x.

        grad_output: float64 (N, d_out), one gradient of delta per sample, left unchanged.
        cache: from the forward() that is meant, which need not be the last one. Between the two
        neither its x nor A and B change.

        dA and dB become the mean over the batch of the samples' gradients, in the place of what
        they were: the gradients of (delta * grad_output).sum() / N. The gradient of x, (N, d_in),
        is that of (delta * grad_output).sum(): one row per sample, not averaged.
        """
        raise NotImplementedError

    def update(self, lr: float) -> None:
        """Take one step of gradient descent, A by -lr * dA and B by -lr * dB."""
        raise NotImplementedError

    def get_merged_delta(self) -> np.ndarray:
        """Return scale * B @ A, float64 (d_out, d_in): what is added to the frozen weight."""
        raise NotImplementedError
