import torch


def group_by_adapter(adapter_ids):
    order = torch.argsort(adapter_ids, stable=True)
    in_order = adapter_ids.index_select(0, order)
    border = torch.nn.functional.pad(in_order.diff().ne(0), (1, 1), value=True)
    (starts,) = torch.where(border)
    return order, starts, in_order[starts[:-1]]


def _one(x, k, A, B):
    keep = (k >= 0).to(x.dtype)
    k = k.clamp(min=0)
    return keep * (torch.index_select(B, 0, k[None])[0] @ (torch.index_select(A, 0, k[None])[0] @ x))


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    ids = segment_ids.repeat_interleave(segment_starts.diff(), output_size=len(x))
    return torch.stack([_one(row, k, lora_A, lora_B) for row, k in zip(x, ids)]) * scale
