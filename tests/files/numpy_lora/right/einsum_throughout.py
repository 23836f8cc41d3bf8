from numpy import einsum, zeros
from numpy.random import default_rng


class LoRA:
    def __init__(self, d_in, d_out, r, alpha=None, init_scale=0.01, rng=None):
        self.scale = 1.0 if alpha is None else alpha / r
        self.A = default_rng(rng).standard_normal((r, d_in)) * init_scale
        self.B = zeros((d_out, r))

    def forward(self, x):
        return self.scale * einsum("ni,ri,or->no", x, self.A, self.B), x

    def backward(self, grad_output, cache):
        x = cache
        per_sample = einsum("no,or,ni->nri", grad_output, self.B, x)
        self.dA = self.scale * per_sample.mean(axis=0)
        self.dB = self.scale * einsum("no,ni,ri->nor", grad_output, x, self.A).mean(0)
        return self.scale * einsum("no,or,ri->ni", grad_output, self.B, self.A)

    def update(self, lr):
        self.A, self.B = self.A - lr * self.dA, self.B - lr * self.dB

    def get_merged_delta(self):
        return self.scale * einsum("or,ri->oi", self.B, self.A)
