import torch


def group_by_adapter(adapter_ids):
    # Insertion, one token after the other.
    order = []
    ids = adapter_ids.tolist()
    for token, adapter in enumerate(ids):
        place = len(order)
        while place and ids[order[place - 1]] > adapter:
            place -= 1
        order.insert(place, token)
    ascending = [ids[t] for t in order]
    starts = [t for t in range(len(ids)) if t == 0 or ascending[t] != ascending[t - 1]]
    like = dict(dtype=torch.int64, device=adapter_ids.device)
    return (
        torch.tensor(order, **like),
        torch.tensor(starts + [len(ids)], **like),
        torch.tensor([ascending[t] for t in starts], **like),
    )


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    """One big matrix whose blocks are the segments' updates."""
    r, out = lora_A.shape[1], lora_B.shape[1]
    none = x.new_zeros(r, x.shape[1]), x.new_zeros(out, r)
    rows = [
        torch.block_diag(*x[a:b].unsqueeze(1)) if b > a else None
        for a, b in zip(segment_starts.tolist(), segment_starts.tolist()[1:])
    ]
    result = []
    for adapter, wide in zip(segment_ids.tolist(), rows):
        if wide is None:
            continue
        A, B = (lora_A[adapter], lora_B[adapter]) if adapter >= 0 else none
        count = wide.shape[0]
        low = wide @ A.T.repeat(count, 1)
        result.append(low @ B.T * scale)
    return torch.cat(result)
