from typing import NamedTuple

import numpy as np
import torch


class Grouping(NamedTuple):
    order: torch.Tensor
    segment_starts: torch.Tensor
    segment_ids: torch.Tensor


def group_by_adapter(adapter_ids: torch.Tensor) -> Grouping:
    ids = adapter_ids.cpu().numpy()
    order = np.argsort(ids, kind="stable")
    names, firsts = np.unique(ids[order], return_index=True)
    starts = np.append(firsts, ids.size)
    return Grouping(*(torch.as_tensor(v).to(adapter_ids.device) for v in (order, starts, names)))


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    starts = segment_starts.cpu().numpy()
    out = torch.empty(x.shape[0], lora_B.shape[1], dtype=x.dtype, device=x.device)
    for adapter, rows in zip(segment_ids.cpu().numpy(), map(slice, starts[:-1], starts[1:])):
        if adapter < 0:
            out[rows].zero_()
            continue
        delta = lora_B[adapter] @ lora_A[adapter]
        out[rows] = torch.nn.functional.linear(x[rows], scale * delta)
    return out
