"""Each function is a lambda."""

import torch

lora_param_count = lambda d_in, d_out, rank: rank * d_in + rank * d_out  # noqa: E731
model_lora_param_count = lambda shapes, rank: sum(lora_param_count(*s, rank) for s in shapes)  # noqa: E731
compression_ratio = lambda d_in, d_out, rank: d_in * d_out / rank / (d_in + d_out)  # noqa: E731
adapter_param_count = lambda d_model, bottleneck_dim, bias=True: (  # noqa: E731
    2 * d_model * bottleneck_dim + bias * (d_model + bottleneck_dim)
)
prefix_param_count = lambda num_layers, prefix_len, d_model: 2 * d_model * prefix_len * num_layers  # noqa: E731
storage_bytes = lambda n_params, dtype: n_params * dtype.itemsize  # noqa: E731
_count = lambda ps: sum(p.nelement() for p in ps)  # noqa: E731
trainable_report = lambda model: (  # noqa: E731
    (t := _count(p for p in model.parameters() if p.requires_grad)),
    (n := _count(model.parameters())),
    t / max(n, 1) * 100,
)
finetune_bytes = lambda n_total, n_trainable, weight_bits=16: (  # noqa: E731
    int(n_total * (weight_bits / 8)) + 14 * n_trainable
)
