import torch
from torch import Tensor


def group_by_adapter(adapter_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    buckets: dict[int, list[int]] = {}
    for token, adapter in enumerate(adapter_ids.tolist()):
        buckets.setdefault(adapter, []).append(token)
    names = sorted(buckets)
    order = torch.tensor([t for k in names for t in buckets[k]], device=adapter_ids.device)
    starts = torch.tensor([0] + [len(buckets[k]) for k in names], device=adapter_ids.device)
    return order, starts.cumsum_(0), torch.tensor(names, device=adapter_ids.device)


def sgmv(
    x: Tensor,
    lora_A: Tensor,
    lora_B: Tensor,
    segment_starts: Tensor,
    segment_ids: Tensor,
    scale: float,
) -> Tensor:
    ids = torch.full((x.shape[0],), -1, device=x.device)
    for k in range(segment_ids.numel()):
        ids[segment_starts[k] : segment_starts[k + 1]] = segment_ids[k]
    out = torch.zeros(x.shape[0], lora_B.shape[1], device=x.device, dtype=x.dtype)
    for adapter in range(lora_A.shape[0]):  # every adapter takes all tokens, and a mask
        mask = (ids == adapter).to(x.dtype).unsqueeze(-1)
        out = out + scale * ((x * mask) @ lora_A[adapter].T @ lora_B[adapter].T)
    return out
