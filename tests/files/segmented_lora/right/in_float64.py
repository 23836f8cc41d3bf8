import torch


def group_by_adapter(adapter_ids):
    order = torch.arange(len(adapter_ids), device=adapter_ids.device)
    # Radix sort by bits: each pass is stable.
    keys = adapter_ids + 1
    bit = 1
    while bit <= int(keys.max()):
        ones = (keys[order] & bit).bool()
        order = torch.cat([order[~ones], order[ones]])
        bit <<= 1
    ids = sorted(set(adapter_ids.tolist()))
    lengths = [int((adapter_ids == k).sum()) for k in ids]
    starts = torch.tensor([sum(lengths[:k]) for k in range(len(ids) + 1)])
    return order, starts.to(order.device), torch.tensor(ids, device=order.device)


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    dtype = x.dtype
    wide, A, B = x.to(torch.float64), lora_A.to(torch.float64), lora_B.to(torch.float64)
    out = torch.zeros(x.shape[0], B.shape[1], dtype=torch.float64, device=x.device)
    for k, adapter in enumerate(segment_ids):
        rows = torch.arange(segment_starts[k], segment_starts[k + 1], device=x.device)
        if adapter < 0 or not len(rows):
            continue
        piece = torch.matmul(torch.matmul(wide[rows], A[adapter].T), B[adapter].T)
        out = out.index_copy(0, rows, piece)
    return (scale * out).to(dtype)
