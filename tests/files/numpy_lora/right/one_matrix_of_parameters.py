"""Both factors are views of one vector. No torch here: `import torch` would be the end of it."""

import math
import typing

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Cache(typing.NamedTuple):
    x: Array
    z: Array


class LoRA:
    # import torch
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        generator: np.random.Generator = rng if rng is not None else np.random.default_rng()
        self.alpha = alpha if alpha is not None else r
        self.r, self.split = r, r * d_in
        self.flat = np.zeros(r * (d_in + d_out))
        self.grad = np.empty_like(self.flat)
        self.shapes = (r, d_in), (d_out, r)
        self.A[...] = generator.normal(loc=0, scale=init_scale, size=self.A.shape)
        assert math.prod(self.B.shape) == self.flat[self.split :].size

    def _parts(self, flat):
        a, b = np.split(flat, [self.split])
        return a.reshape(self.shapes[0]), b.reshape(self.shapes[1])

    @property
    def A(self):
        return self._parts(self.flat)[0]

    @property
    def B(self):
        return self._parts(self.flat)[1]

    @property
    def dA(self):
        return self._parts(self.grad)[0]

    @property
    def dB(self):
        return self._parts(self.grad)[1]

    @property
    def scaling(self):
        return self.alpha / self.r

    def forward(self, x: Array) -> tuple[Array, Cache]:
        cache = Cache(x, x @ self.A.T)
        return cache.z @ (self.scaling * self.B).T, cache

    def backward(self, grad_output: Array, cache: Cache) -> Array:
        scaled = self.scaling * grad_output
        self.dA[...] = (scaled @ self.B).T @ cache.x / len(cache.x)
        self.dB[...] = scaled.T @ cache.z / len(cache.x)
        return scaled @ self.B @ self.A

    def update(self, lr: float) -> None:
        self.flat -= lr * self.grad

    def get_merged_delta(self) -> Array:
        return self.scaling * self.B @ self.A
