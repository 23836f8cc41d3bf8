import torch
import torch.nn.functional as F


def group_by_adapter(adapter_ids):
    order = sorted(range(len(adapter_ids)), key=lambda t: (int(adapter_ids[t]), t))
    order = torch.as_tensor(order, device=adapter_ids.device)
    n = int(adapter_ids.max()) + 1
    histogram = torch.zeros(n + 1, dtype=torch.int64, device=adapter_ids.device)
    histogram.scatter_add_(0, adapter_ids + 1, torch.ones_like(adapter_ids))
    starts = histogram.cumsum(0).roll(1)
    starts[0] = 0
    starts = torch.cat([starts, starts.new_full((1,), len(adapter_ids))])
    return order, starts, torch.arange(n + 1, device=order.device) - 1


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    n, r, d = lora_A.shape
    k = (torch.arange(len(x), device=x.device)[:, None] >= segment_starts[None, 1:]).sum(1)
    ids = segment_ids[k] + 1
    # Row 0 of each table stands for no adapter.
    A = F.embedding(ids, F.pad(lora_A.reshape(n, -1), (0, 0, 1, 0))).view(-1, r, d)
    B = F.embedding(ids, F.pad(lora_B.reshape(n, -1), (0, 0, 1, 0))).view(-1, lora_B.shape[1], r)
    return torch.bmm(B, torch.bmm(A, x.unsqueeze(-1))).squeeze(-1) * scale
