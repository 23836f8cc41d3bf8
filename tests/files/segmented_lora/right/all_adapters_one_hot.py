import torch
import torch.nn.functional as F


def group_by_adapter(adapter_ids: torch.Tensor):
    T = adapter_ids.numel()
    # Keys are all different: no need for a stable sort.
    keys = adapter_ids * T + torch.arange(T, device=adapter_ids.device)
    order = keys.argsort()
    in_order = adapter_ids[order]
    low, high = int(in_order[0]), int(in_order[-1])
    ids = torch.arange(low, high + 1, device=adapter_ids.device)
    ends = torch.searchsorted(in_order, ids, right=True)
    return order, F.pad(ends, (1, 0)), ids


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    n = len(lora_A)
    position = torch.arange(len(x), device=x.device)
    segment = torch.bucketize(position, segment_starts[1:], right=True)
    gate = F.one_hot(segment_ids[segment] + 1, n + 1)[:, 1:].to(x.dtype)  # (T, n)
    low = torch.einsum("ti,nri,tn->tnr", x, lora_A, gate)
    return torch.einsum("tnr,nor->to", low, lora_B) * scale
