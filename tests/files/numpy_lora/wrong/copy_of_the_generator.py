# wrong: A is drawn from a copy of the generator
# bug: generator-not-moved
import numpy as np
class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        import copy; rng = np.random.default_rng() if rng is None else copy.deepcopy(rng)
        self.scale = (r if alpha is None else alpha) / r
        self.A = rng.normal(0.0, init_scale, (r, d_in))
        self.B = np.zeros((d_out, r))
    def forward(self, x):
        z = x @ self.A.T
        delta = self.scale * z @ self.B.T
        return delta, (x, z)
    def backward(self, grad_output, cache):
        x, z = cache
        n = len(x)
        grad_z = self.scale * grad_output @ self.B
        self.dA = grad_z.T @ x / n
        self.dB = self.scale * grad_output.T @ z / n
        return grad_z @ self.A
    def update(self, lr):
        self.A -= lr * self.dA
        self.B -= lr * self.dB
    def get_merged_delta(self):
        return self.scale * self.B @ self.A
