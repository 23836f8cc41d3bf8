"""What the examiner computes of a model with adapted layers."""

from concurrent.futures import ThreadPoolExecutor

import torch

from grader.exam.checks import Draw
from grader.suites.shared import injection
from grader.suites.test_inject_ia3 import IA3


def test_a_model_is_lent_to_one_at_a_time() -> None:
    """Who has it is alone with it; the next gets it back without what was put into it."""
    with injection.borrowed(injection.net) as (first, _):
        first.fc.forward = torch.tanh
        with injection.borrowed(injection.net) as (second, _):
            assert second is not first
    with injection.borrowed(injection.net) as (again, _):
        assert "forward" not in vars(again.fc)


def test_gradients_side_by_side() -> None:
    """Two lanes of checks compute at once; neither sees the other's values."""
    cases = [(IA3.net(Draw(seed)), Draw(seed)(3, 5)) for seed in range(8)]
    alone = [case.gradients(x) for case, x in cases]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda pair: pair[0].gradients(pair[1]), cases * 20))
    for want, got in zip(alone * 20, found, strict=True):
        assert want.keys() == got.keys()
        assert all(torch.equal(want[name], got[name]) for name in want)
