import torch


def group_by_adapter(adapter_ids):
    top = int(adapter_ids.max())
    names = torch.arange(-1, top + 1, device=adapter_ids.device)
    member = adapter_ids[None, :] == names[:, None]  # (s, T)
    counts = member.sum(1)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    rank = member.long().cumsum(1) - 1
    place = (member * (starts[:-1, None] + rank)).sum(0)  # where each token goes
    order = torch.empty_like(place)
    order[place] = torch.arange(len(place), device=place.device)
    return order, starts, names


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    begin, end = segment_starts[:-1, None], segment_starts[1:, None]
    t = torch.arange(x.shape[0], device=x.device)
    inside = (t >= begin) & (t < end) & (segment_ids >= 0)[:, None]  # (s, T)
    A, B = lora_A[segment_ids], lora_B[segment_ids]
    per_segment = (x @ A.mT) @ B.mT  # (s, T, out)
    return scale * (inside.to(x.dtype)[:, :, None] * per_segment).sum(0)
