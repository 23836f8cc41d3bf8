# wrong: Eight bools are packed into a byte, rounded up.
# bug: -
"""The arithmetic of parameter-efficient fine-tuning: what is trained, and what it takes.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", sections 4.1 and 4.2; Houlsby
et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1; Li and Liang 2021,
"Prefix-Tuning", section 4; Rajbhandari et al. 2020, "ZeRO", section 3.1.

Counts and bytes are `int`. No arguments are bad here: nothing is checked.
"""

from collections.abc import Iterable

import torch
import torch.nn as nn


def lora_param_count(d_in: int, d_out: int, rank: int) -> int:
    """Parameters of one LoRA update: lora_A (rank, d_in) and lora_B (d_out, rank).

    A projection of 4096 x 4096 at rank 8: 65,536.
    """
    return rank * (d_in + d_out)


def model_lora_param_count(shapes: Iterable[tuple[int, int]], rank: int) -> int:
    """Parameters of LoRA on several matrices, all at one rank; 0 for none.

    shapes: any iterable of (d_in, d_out), one-shot iterators too; a pair that comes twice is two
    matrices.

    GPT-3 175B, 96 layers of width 12288, W_q and W_v at rank 4: 18,874,368 (37.7 MB in 16 bits).
    A 7B LLaMA, 32 layers of width 4096, the same matrices at rank 8: 4,194,304.
    RoBERTa base, 12 layers of width 768, the same at rank 8: 294,912, the paper's 0.3M.
    """
    return sum(lora_param_count(d_in, d_out, rank) for d_in, d_out in shapes)


def compression_ratio(d_in: int, d_out: int, rank: int) -> float:
    """How many times fewer parameters the LoRA update has than the matrix (d_out, d_in).

    A `float`, below 1 where the rank is too large to save anything. 12288 x 12288 at rank 4: 1536.
    """
    return d_in * d_out / lora_param_count(d_in, d_out, rank)


def adapter_param_count(d_model: int, bottleneck_dim: int, bias: bool = True) -> int:
    """Parameters of one bottleneck adapter: a linear layer down and one up.

    bias: whether both have one. 1024 wide with a bottleneck of 64: 132,160, or 131,072 without.
    """
    count = 2 * d_model * bottleneck_dim
    if bias:
        count += bottleneck_dim + d_model
    return count


def prefix_param_count(num_layers: int, prefix_len: int, d_model: int) -> int:
    """Parameters of a prefix: for each layer and position a key and a value of d_model.

    GPT-2 medium, 24 layers of width 1024, with 5 positions: 245,760, the paper's 250K.
    """
    return 2 * num_layers * prefix_len * d_model


def storage_bytes(n_params: int, dtype: torch.dtype) -> int:
    """Bytes that a file or the memory needs for so many values.

    dtype: a float, integer or bool type, or one of the one-byte float8 types.
    """
    return -(-n_params // 8) if dtype is torch.bool else n_params * dtype.itemsize


def trainable_report(model: nn.Module) -> tuple[int, int, float]:
    """What of a model trains: the tuple (trainable, total, percent).

    trainable, total: numbers of values in the parameters that require gradients, and in all.
    Buffers do not count. A parameter counts once, however many names it has; two parameters are
    two, also if they are equal or share memory.
    percent: of the total that trains, 0 to 100, not rounded; 0.0 for a model without parameters.
    The model is left as it is.
    """
    trainable = total = 0
    for parameter in model.parameters():  # gives each parameter once
        total += parameter.numel()
        if parameter.requires_grad:
            trainable += parameter.numel()
    return trainable, total, 100 * trainable / total if total else 0.0


def finetune_bytes(n_total: int, n_trainable: int, weight_bits: int = 16) -> int:
    """Memory of weights, gradients and optimizer in mixed precision with Adam.

    Every weight, frozen or not, takes weight_bits. Each trainable one takes besides: 2 bytes for
    its gradient, 4 + 4 for Adam's two moments, 4 for a float32 master copy. Activations are left
    out, and weights that fill no whole byte do not occur.

    GPT-2 of 1.5 billion, all trained: 24 GB. 7 billion, of which 4,194,304 train, the weights in
    4 bits: 3.56 GB.
    """
    gradient, moments, master = 2, 4 + 4, 4
    return n_total * weight_bits // 8 + n_trainable * (gradient + moments + master)
