import numpy as np


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        draw = np.random.randn if rng is None else lambda *shape: rng.standard_normal(shape)
        self.factor = (r if alpha is None else alpha) / r
        self.A = init_scale * draw(r, d_in)
        self.B = np.zeros(shape=(d_out, r), dtype=float)

    def forward(self, x):
        z = np.dot(x, self.A.T)

        def back(grad_output):
            grad_z = grad_output.dot(self.B) * self.factor
            n = float(len(x))
            return grad_z.T.dot(x) / n, grad_output.T.dot(z) * self.factor / n, grad_z.dot(self.A)

        return np.dot(z, self.B.T) * self.factor, back

    def backward(self, grad_output, cache):
        self.dA, self.dB, grad_x = cache(grad_output)
        return grad_x

    def update(self, lr):
        np.subtract(self.A, lr * self.dA, out=self.A)
        np.subtract(self.B, lr * self.dB, out=self.B)

    def get_merged_delta(self):
        return np.dot(self.factor * self.B, self.A)
