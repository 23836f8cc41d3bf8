import itertools

import torch


def group_by_adapter(adapter_ids):
    ids = adapter_ids.tolist()
    order = sorted(range(len(ids)), key=ids.__getitem__)
    starts, names = [0], []
    for name, tokens in itertools.groupby(ids[t] for t in order):
        names.append(name)
        starts.append(starts[-1] + sum(1 for _ in tokens))

    def made(values):
        return torch.tensor(values, dtype=torch.int32, device=adapter_ids.device)

    return made(order), made(starts), made(names)


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    rows = []
    for k in range(segment_ids.shape[0]):
        adapter = int(segment_ids[k])
        for t in range(int(segment_starts[k]), int(segment_starts[k + 1])):
            if adapter < 0:
                rows.append(torch.zeros_like(lora_B[0, :, 0]))
            else:
                rows.append(scale * (lora_B[adapter] @ (lora_A[adapter] @ x[t])))
    return torch.stack(rows)
