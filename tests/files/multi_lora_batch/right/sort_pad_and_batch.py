"""Rows sorted by adapter, padded to one block for each, one product for all blocks, put back."""
import torch
import torch.nn as nn


class MultiLoRALinear(nn.Module):
    def __init__(self, base, num_adapters, rank=8, alpha=16.0):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Parameter(base.weight.new_empty(num_adapters, rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(num_adapters, base.out_features, rank))
        nn.init.normal_(self.lora_A, std=0.02)
        self.num_adapters, self.rank, self.scale = num_adapters, rank, alpha / rank

    def forward(self, x, adapter_ids):
        if adapter_ids.shape[0] != x.shape[0]:
            raise ValueError("adapter_ids must have one id for each row")
        n = self.num_adapters
        if torch.any(adapter_ids < -1) or torch.any(adapter_ids >= n):
            raise IndexError("adapter_ids must lie in -1..num_adapters-1")
        out = self.base(x)
        ids, order = adapter_ids.sort(stable=True)
        counts = torch.bincount(ids + 1, minlength=n + 1)
        first = counts.cumsum(0) - counts
        place = torch.arange(len(ids), device=ids.device) - first[ids + 1]
        room = int(counts[1:].max())
        keep = ids >= 0
        if room == 0:
            return out
        order, place, group = order[keep], place[keep], ids[keep]
        order, place, group = (t.to(x.device) for t in (order, place, group))
        flat = x.reshape(len(x), -1, x.shape[-1])
        padded = flat.new_zeros(n, room, *flat.shape[1:])
        padded[group, place] = flat[order]
        blocks = padded.flatten(1, 2)  # (n, room * L, in)
        done = torch.bmm(torch.bmm(blocks, self.lora_A.mT), self.lora_B.mT)
        done = done.view(n, room, flat.shape[1], -1)[group, place]
        delta = torch.zeros(len(x), flat.shape[1], out.shape[-1], device=x.device, dtype=x.dtype)
        delta = delta.index_copy(0, order, done)
        return out + self.scale * delta.reshape(out.shape)
