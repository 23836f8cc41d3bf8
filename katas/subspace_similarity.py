"""Do two adapters look at the same directions, and which does an update amplify?

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models": section 7.2, equation 4
(similarity of the subspaces of two ranks, figure 3), and section 7.3 (the amplification factor of
table 7).
"""

import torch


def phi(A1: torch.Tensor, A2: torch.Tensor, i: int, j: int) -> float:
    """How much of the subspace of A1's top i directions lies in that of A2's top j.

        ||U1_i^T U2_j||_F^2 / min(i, j)

    A1: (r1, d) and A2: (r2, d), both float32 or both float64, with r1, r2 <= d. The columns of U1,
    U2 are the right-singular vectors of A1, A2 (directions in d), strongest first; U1_i holds the
    first i, U2_j the first j. The rows are not centred.

    Returns a Python float, right to within 1e-3 in float32, 1e-8 in float64: 1 where one subspace
    holds the other, 0 where they are orthogonal.

    The leading singular values are within a factor of 10 of each other, and the i-th (j-th) is
    10 % above the next: eigh of a Gram matrix is accurate enough. A1, A2 may be nn.Parameters and
    are left alone; they may lack full rank, i and j are then up to it.

    Raises ValueError, naming the argument, unless 1 <= i <= r1 and 1 <= j <= r2.
    """
    raise NotImplementedError


def amplification(W: torch.Tensor, B: torch.Tensor, A: torch.Tensor) -> float:
    """By how much the update BA is larger than W is in the same directions.

        ||BA||_F / ||U^T W V||_F

    W: (out, in), B: (out, r), A: (r, in), all float32 or all float64; BA has rank r. The columns of
    U (out, r) and V (in, r) are the top r left- and right-singular vectors of BA.

    Returns a Python float, right to within 1e-3 of it in float32, 1e-8 in float64.

    The r singular values of BA are within a factor of 10 of each other, and W is not 0 in its
    directions. The arguments may be nn.Parameters and are left alone.
    """
    raise NotImplementedError
