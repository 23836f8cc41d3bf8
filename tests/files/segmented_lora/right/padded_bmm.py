import torch
from torch.nn.utils.rnn import pad_sequence


def group_by_adapter(adapter_ids):
    values, order = adapter_ids.sort(stable=True)
    change = torch.ones_like(values, dtype=torch.bool)
    change[1:] = values[1:] != values[:-1]
    firsts = change.nonzero().flatten()
    starts = torch.cat([firsts, firsts.new_tensor([len(values)])])
    return order.to(torch.int32), starts.to(torch.int32), values[firsts].to(torch.int16)


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    lengths = segment_starts.diff()
    live = (segment_ids >= 0) & (lengths > 0)
    out = torch.zeros(x.size(0), lora_B.size(1), dtype=x.dtype, device=x.device)
    if not live.any():
        return out
    spans = [
        torch.arange(a, b, device=x.device)
        for a, b, on in zip(segment_starts[:-1].tolist(), segment_starts[1:].tolist(), live.tolist())
        if on
    ]
    padded = pad_sequence([x[s] for s in spans], batch_first=True)  # (k, longest, in)
    chosen = segment_ids[live].long()
    low = torch.bmm(padded, lora_A[chosen].transpose(1, 2))
    high = torch.bmm(low, lora_B[chosen].transpose(1, 2)).mul(scale)
    rows = torch.cat([high[k, : len(s)] for k, s in enumerate(spans)])
    return out.index_add(0, torch.cat(spans), rows)
