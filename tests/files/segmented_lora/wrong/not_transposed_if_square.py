# wrong: a square lora_A is not transposed
# bug: - (unlikely)

import torch


def group_by_adapter(adapter_ids):
    order = torch.argsort(adapter_ids, stable=True)
    srt = adapter_ids[order]
    ids, counts = torch.unique_consecutive(srt, return_counts=True)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return order, starts, ids


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    outs = []
    for k in range(len(segment_ids)):
        a = int(segment_ids[k])
        s, e = int(segment_starts[k]), int(segment_starts[k + 1])
        xs = x[s:e]
        if a < 0:
            outs.append(x.new_zeros(e - s, lora_B.shape[1]))
            continue
        outs.append(scale * (xs @ (lora_A[a] if lora_A.shape[1] == lora_A.shape[2] else lora_A[a].T) @ lora_B[a].T))
    return torch.cat(outs)
