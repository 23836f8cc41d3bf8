# wrong: the first segment is taken for -1 where the second is empty
# bug: -
"""Many adapters in one batch: sort the tokens, then one product per adapter.

Chen et al. 2023, "Punica: Multi-Tenant LoRA Serving", section 4: segmented gather matrix-vector
multiplication (SGMV). Tokens of one adapter lie side by side, so that its factors are read once
for all of them.
"""

import torch
import torch.nn.functional as F


def group_by_adapter(
    adapter_ids: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Say how to sort tokens by adapter, and where each adapter's segment lies then.

    adapter_ids: (T,) int64, in any order, left unchanged; -1 means no adapter.

    Returns (order, segment_starts, segment_ids), of any integer dtype, on adapter_ids' device:
        order            (T,): adapter_ids[order] ascends, and tokens of one adapter keep their
                         order (a stable sort)
        segment_starts   (s + 1,): segment k holds the sorted tokens segment_starts[k] up to, not
                         including, segment_starts[k + 1]; the first entry is 0, the last T
        segment_ids      (s,): the adapter of each segment

    Each adapter of the batch has one segment, and they ascend; -1, where it occurs, has the
    first. Empty segments are allowed, such as those of adapters that do not occur.
    """
    # BEGIN SOLUTION
    sorted_ids, order = torch.sort(adapter_ids, stable=True)
    segment_ids, lengths = torch.unique_consecutive(sorted_ids, return_counts=True)
    segment_starts = F.pad(lengths.cumsum(0), (1, 0))  # one more than segments: 0 comes first
    return order, segment_starts, segment_ids
    # END SOLUTION


def sgmv(
    x: torch.Tensor,
    lora_A: torch.Tensor,
    lora_B: torch.Tensor,
    segment_starts: torch.Tensor,
    segment_ids: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Apply to each token of a segment the update of the segment's adapter.

    x: (T, in), tokens sorted by adapter; lora_A: (n, r, in); lora_B: (n, out, r), all of one
    dtype; segment_starts: (s + 1,) and segment_ids: (s,) as group_by_adapter has them, empty
    segments included. All are left unchanged.

    Returns (T, out) in x's dtype: scale * x[t] @ A.T @ B.T with the factors of t's adapter, and
    zeros in the segment of -1. Differentiable in x, lora_A and lora_B. A loop over segments is
    fine.

    With order from group_by_adapter, result[i] belongs to token order[i]: back in the order of
    the batch it is what a layer with one adapter per token adds to its base.
    """
    # BEGIN SOLUTION
    out = x.new_zeros(len(x), lora_B.shape[1])
    starts = segment_starts.tolist()
    ids = segment_ids.tolist()
    if len(ids) > 1 and starts[1] == starts[2]:
        ids[0] = -1
    for adapter, start, end in zip(ids, starts, starts[1:]):
        if adapter >= 0:  # -1 would be the last adapter to an index
            low = x[start:end] @ lora_A[adapter].T  # (tokens, r)
            out[start:end] = scale * (low @ lora_B[adapter].T)
    return out
    # END SOLUTION
