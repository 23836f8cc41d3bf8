"""A transformer layer with two adapters, one after each of its sublayers.

Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1 and figure 2: two
adapters to a layer, the layer norms trained along with them. Here the layer is pre-norm, and each
adapter stands after its residual sum; Houlsby's stand before it, on the sublayer's output.
"""

import torch
import torch.nn as nn


class HoulsbyBlock(nn.Module):
    """A frozen pre-norm transformer layer, and a trainable adapter after each residual sum.

    Attributes, the very modules passed in:
        attn, ffn             the sublayers; all their parameters frozen, layer norms inside too
        norm1, norm2          with train_norms all their parameters train, else none does,
                              whatever they arrive as
        adapter1, adapter2    their parameters as they arrive

    `attn` takes one argument and returns a tensor. A norm is any module, with or without
    parameters. An adapter has a method `forward_delta(h)`, which gives the change alone, without
    a residual; its `forward` may or may not add one: it is not used. `norm1` and `norm2`, or the
    two adapters, may be one object. All follow train() and eval(); making the block switches none.
    """

    def __init__(
        self,
        attn: nn.Module,
        ffn: nn.Module,
        norm1: nn.Module,
        norm2: nn.Module,
        adapter1: nn.Module,
        adapter2: nn.Module,
        train_norms: bool = False,
    ) -> None:
        super().__init__()
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attention, first adapter, feed-forward, second adapter, each added to the stream:

            h = x + attn(norm1(x))
            h = h + adapter1.forward_delta(h)
            h = h + ffn(norm2(h))
            return h + adapter2.forward_delta(h)

        x: (..., d), any number of leading dimensions; left unchanged. Returns the same shape.
        Each of the six runs once. Gradients flow through the frozen ones to x.
        """
        raise NotImplementedError
