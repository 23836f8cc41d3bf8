import torch


def group_by_adapter(adapter_ids):
    # A segment for every id from -1 up to the largest, many of them empty.
    counts = torch.bincount(adapter_ids + 1)
    starts = torch.zeros(len(counts) + 1, dtype=torch.long, device=adapter_ids.device)
    torch.cumsum(counts, 0, out=starts[1:])
    ids = torch.arange(-1, len(counts) - 1, device=adapter_ids.device)
    return adapter_ids.argsort(stable=True), starts, ids


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    lengths = segment_starts.diff().tolist()
    pieces = []
    for tokens, adapter in zip(x.split(lengths), segment_ids.tolist()):
        if adapter == -1:
            pieces.append(tokens.new_zeros(tokens.shape[0], lora_B.shape[1]))
        else:
            pieces.append(tokens @ lora_A[adapter].mT @ lora_B[adapter].mT * scale)
    return torch.cat(pieces)
