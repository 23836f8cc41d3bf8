import torch


def phi(A1: torch.Tensor, A2: torch.Tensor, i: int, j: int) -> float:
    for name, count, A in [("i", i, A1), ("j", j, A2)]:
        if count not in range(1, len(A) + 1):
            raise ValueError(f"{name} out of range: {count}")
    first, second = (torch.linalg.svd(A.detach())[2] for A in (A1, A2))
    cosines = torch.linalg.svdvals(first[:i] @ second[:j].T)
    return min(1, cosines.square().sum().item() / min(i, j))


def amplification(W: torch.Tensor, B: torch.Tensor, A: torch.Tensor) -> float:
    W, B, A = W.detach(), B.detach(), A.detach()
    U, S, Vh = torch.linalg.svd(B @ A)
    r = min(A.shape[0], *W.shape)
    values = torch.linalg.svdvals(U[:, :r].T @ W @ Vh[:r].T)
    return (S.square().sum() / values.square().sum()).sqrt().item()
