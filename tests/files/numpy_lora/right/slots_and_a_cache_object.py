import numpy as np


class _Cache:
    __slots__ = ("batch", "low")

    def __init__(self, batch, low):
        self.batch, self.low = batch, low


class _Linear:
    """y = x W^T, by hand."""

    __slots__ = ("W", "dW")

    def __init__(self, W):
        self.W = W

    def forward(self, x):
        return x @ self.W.T

    def backward(self, grad, x):
        self.dW = np.mean(grad[:, :, None] * x[:, None, :], axis=0)
        return grad @ self.W

    def update(self, lr):
        self.W -= lr * self.dW


class LoRA:
    __slots__ = ("down", "up", "scale")

    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        rng = np.random.default_rng() if rng is None else rng
        self.down = _Linear(init_scale * rng.standard_normal(size=(r, d_in)))
        self.up = _Linear(np.zeros((d_out, r)))
        self.scale = np.float64(r if alpha is None else alpha) / r

    A = property(lambda self: self.down.W)
    B = property(lambda self: self.up.W)
    dA = property(lambda self: self.down.dW)
    dB = property(lambda self: self.up.dW)

    def forward(self, x):
        low = self.down.forward(x)
        return self.scale * self.up.forward(low), _Cache(x, low)

    def backward(self, grad_output, cache):
        grad_low = self.up.backward(self.scale * grad_output, cache.low)
        return self.down.backward(grad_low, cache.batch)

    def update(self, lr):
        for layer in (self.down, self.up):
            layer.update(lr)

    def get_merged_delta(self):
        return self.scale * np.matmul(self.up.W, self.down.W)
