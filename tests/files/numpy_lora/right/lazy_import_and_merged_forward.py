class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        import numpy as np

        if alpha is None:
            alpha = float(r)
        if rng is None:
            rng = np.random.Generator(np.random.PCG64())
        self.scale = alpha / r
        self.A = np.empty((r, d_in))
        rng.standard_normal(out=self.A)
        self.A *= init_scale
        self.B = np.zeros_like(self.A, shape=(d_out, r))

    def forward(self, x):
        return x @ self.get_merged_delta().T, (id(x), x)

    def backward(self, grad_output, cache):
        _, x = cache
        self.dA, self.dB = self._gradients(grad_output, x)
        return grad_output @ self.get_merged_delta()

    def _gradients(self, g, x):
        from numpy import average, tensordot

        dW = self.scale * average(g[:, :, None] * x[:, None], axis=0)
        return tensordot(self.B, dW, (0, 0)), tensordot(dW, self.A, (1, 1))

    def update(self, lr):
        self.A[:] = self.A - lr * self.dA
        self.B[:] = self.B - lr * self.dB

    def get_merged_delta(self):
        return self.scale * self.B.dot(self.A)
