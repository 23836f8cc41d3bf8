"""As many segments as tokens, for a kernel of fixed size: the last ones are empty."""

import torch


def group_by_adapter(adapter_ids):
    T = len(adapter_ids)
    order = torch.argsort(adapter_ids, stable=True)
    ids, ends = [], []
    for place, adapter in enumerate(adapter_ids[order].tolist()):
        if ids and ids[-1] == adapter:
            ends[-1] = place + 1
        else:
            ids.append(adapter)
            ends.append(place + 1)
    ids += [ids[-1]] * (T - len(ids))
    ends += [T] * (T - len(ends))
    starts = adapter_ids.new_tensor([0, *ends])
    return order, starts, adapter_ids.new_tensor(ids)


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    TILE = 2
    y = x.new_zeros((x.size(0), lora_B.size(1)))
    for k in range(len(segment_ids)):
        if (adapter := segment_ids[k]) < 0:
            continue
        stop = int(segment_starts[k + 1])
        for t in range(int(segment_starts[k]), stop, TILE):
            tile = slice(t, min(t + TILE, stop))
            y[tile] += (x[tile] @ lora_A[adapter].t() * scale) @ lora_B[adapter].t()
    return y
