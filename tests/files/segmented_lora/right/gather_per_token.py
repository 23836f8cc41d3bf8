import torch


def group_by_adapter(adapter_ids):
    order = torch.argsort(adapter_ids, dim=0, stable=True)
    ids, counts = torch.unique(adapter_ids, sorted=True, return_counts=True)
    return [order, torch.cat((counts.new_zeros(1), counts.cumsum(0))), ids]


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    ids = torch.repeat_interleave(segment_ids, segment_starts[1:] - segment_starts[:-1])
    safe = ids.clamp_min(0)
    low = torch.einsum("ti,tri->tr", x, lora_A[safe])
    out = torch.einsum("tr,tor->to", low, lora_B[safe]) * scale
    return torch.where((ids < 0).unsqueeze(1), torch.zeros_like(out), out)
