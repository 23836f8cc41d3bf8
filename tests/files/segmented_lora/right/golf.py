import torch as t
group_by_adapter = lambda adapter_ids: (
    adapter_ids.argsort(stable=True),
    t.tensor([0, *adapter_ids.unique(return_counts=True)[1].cumsum(0)], device=adapter_ids.device),
    adapter_ids.unique(),
)
sgmv = lambda x, lora_A, lora_B, segment_starts, segment_ids, scale: t.cat([
    x[a:b] @ lora_A[k].T @ lora_B[k].T * (scale if k >= 0 else 0)
    for k, a, b in zip(segment_ids, segment_starts, segment_starts[1:])
])
