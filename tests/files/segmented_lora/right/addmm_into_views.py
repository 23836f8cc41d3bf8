import torch


class _Grouper:
    def __call__(self, adapter_ids):
        self.ids, self.order = torch.sort(adapter_ids, dim=-1, descending=False, stable=True)
        return self.order, self._starts(), self.names

    def _starts(self):
        self.names, _, counts = torch.unique(self.ids, return_inverse=True, return_counts=True)
        return torch.nn.functional.pad(counts, [1, 0]).cumsum(dim=0)


group_by_adapter = _Grouper()


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    out = torch.zeros_like(x[:, :1]).repeat(1, lora_B.shape[-2])
    for start, stop, adapter in zip(segment_starts[:-1], segment_starts[1:], segment_ids):
        if adapter.item() < 0 or start == stop:
            continue
        low = torch.mm(x[start:stop], lora_A[adapter].t())
        out[start:stop].addmm_(low, lora_B[adapter].t(), beta=0, alpha=scale)
    return out
