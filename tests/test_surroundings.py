"""What a probe leaves around itself is put back, and what the probes rely on is watched."""

import builtins
import os
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from grader.exam import surroundings


@pytest.fixture(params=[True, False], ids=["by versions", "by values"])
def around(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[surroundings.Surroundings]:
    """Surroundings after some probes, where dicts bear versions and where they do not."""
    monkeypatch.setattr(surroundings, "_VERSIONS", request.param and surroundings._VERSIONS)
    state = torch.random.get_rng_state()
    found = surroundings.Surroundings()
    for seed in range(3):
        found.restore(seed)
        assert found.replaced() is None
    yield found
    torch.random.set_rng_state(state)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="dicts bear no version")
def test_dicts_bear_versions() -> None:
    assert surroundings._VERSIONS


@pytest.mark.parametrize(
    ("owner", "name", "value", "words"),
    [
        (torch, "allclose", max, "torch.allclose"),
        (nn.Module, "__call__", max, "nn.Module.__call__"),
        (nn.Linear, "__setattr__", max, "nn.Linear.__setattr__"),
    ],
)
def test_what_is_replaced_is_seen_until_it_is_put_back(
    around: surroundings.Surroundings,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    value: object,
    words: str,
) -> None:
    monkeypatch.setattr(owner, name, value)
    assert [around.replaced(), around.replaced()] == [words, words]
    monkeypatch.undo()
    assert around.replaced() is None


def test_what_was_taken_away_comes_back(around: surroundings.Surroundings) -> None:
    modules, kept, word = sys.modules, sys.modules["copy"], builtins.len
    for _ in range(2):
        del sys.modules["copy"], os.environ["PATH"]
        builtins.len = max  # type: ignore[assignment]
        around.restore(1)
        assert (sys.modules["copy"], "PATH" in os.environ, len) == (kept, True, word)
    try:
        sys.modules = {}
        around.restore(1)
        assert sys.modules["copy"] is kept
    finally:
        sys.modules = modules
