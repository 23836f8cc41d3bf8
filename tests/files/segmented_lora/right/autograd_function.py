import torch


class _SGMV(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, A, B, bounds, scale):
        out = torch.zeros((x.shape[0], B.shape[1]), dtype=x.dtype, device=x.device)
        for k, a, b in bounds:
            torch.mm(x[a:b] @ A[k].T, B[k].T, out=out[a:b])
        ctx.save_for_backward(x, A, B)
        ctx.bounds, ctx.scale = bounds, scale
        return out.mul_(scale)

    @staticmethod
    def backward(ctx, g):
        x, A, B = ctx.saved_tensors
        dx, dA, dB = torch.zeros_like(x), torch.zeros_like(A), torch.zeros_like(B)
        for k, a, b in ctx.bounds:
            low, back = x[a:b] @ A[k].T, g[a:b] @ B[k]
            dx[a:b] = ctx.scale * back @ A[k]
            dA[k] += ctx.scale * back.T @ x[a:b]
            dB[k] += ctx.scale * g[a:b].T @ low
        return dx, dA, dB, None, None


def group_by_adapter(adapter_ids):
    order, starts, ids = [], [0], []
    present = set(adapter_ids.tolist())
    for adapter in sorted(present | {-1}):  # -1 has a segment always
        order.append((adapter_ids == adapter).nonzero()[:, 0])
        starts.append(starts[-1] + len(order[-1]))
        ids.append(adapter)
    device = adapter_ids.device
    return torch.cat(order), torch.tensor(starts, device=device), torch.tensor(ids, device=device)


def sgmv(x, lora_A, lora_B, segment_starts, segment_ids, scale):
    starts = segment_starts.tolist()
    bounds = [
        (k, a, b)
        for k, a, b in zip(segment_ids.tolist(), starts, starts[1:])
        if k != -1 and b > a
    ]
    return _SGMV.apply(x, lora_A, lora_B, bounds, scale)
