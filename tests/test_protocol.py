"""What comes from a stage is a typed reply or malformed, whatever it is."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from grader.exam import protocol, wire
from grader.exam.verdict import Kind, Trouble

RAISED = {
    "types": ["builtins.ValueError"],
    "text": "rank",
    "story": "ValueError: rank",
    "missing": False,
    "unwritten": False,
    "deliberate": True,
    "memory": False,
}


def _sent(value: Any) -> protocol.Reply:
    """A value as the examiner gets it."""
    frame = wire.encode(value)
    head, body = wire.lengths(frame[: wire.HEADER_BYTES])
    rest = frame[wire.HEADER_BYTES :]
    return protocol.reply(wire.decode(rest[:head], rest[head : head + body]))


def test_replies_come_through() -> None:
    """Evidence, trouble and exceptions arrive as what they were sent as."""
    tensor = torch.tensor([1.5, -2.0], dtype=torch.float64)
    got = _sent({"id": 3, "evidence": {"y": tensor, "n": [1, (2, None)]}, "left": ["grad mode"]})
    assert got.id == 3
    assert torch.equal(got.evidence["y"], tensor)
    assert got.evidence["n"] == [1, (2, None)]
    assert got.left == ["grad mode"]
    trouble = _sent({"id": 1, "trouble": {"kind": "memory", "message": "much"}}).trouble
    assert trouble == Trouble(Kind.MEMORY, "much")
    raised = _sent({"id": 1, "raised": RAISED}).raised
    assert raised is not None
    assert raised.deliberate


WRONG: dict[str, Any] = {
    "a list": [1, 2],
    "a text": "passed",
    "nothing": None,
    "a tensor": torch.zeros(2),
    "no id": {"evidence": 1},
    "an id that is a text": {"id": "1"},
    "an unknown field": {"id": 1, "passed": True},
    "an unknown kind of trouble": {"id": 1, "trouble": {"kind": "bogus", "message": ""}},
    "trouble that is a text": {"id": 1, "trouble": "syntax"},
    "an exception without fields": {"id": 1, "raised": {"types": []}},
    "an exception with a tensor": {"id": 1, "raised": {**RAISED, "text": torch.zeros(1)}},
    "threads that are many": {"id": 1, "threads": [1]},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_reply(name: str) -> None:
    """Other shapes are malformed."""
    with pytest.raises(protocol.Malformed):
        _sent(WRONG[name])


def _tree(draw: random.Random, depth: int = 0) -> Any:
    """A random JSON tree, rich in the words that the wire and the replies use."""
    words = ["$", "v", "tensor", "dict", "tuple", "meta", "bytes", "foreign", "dtype", "array"]
    words += ["id", "raised", "trouble", "kind", "evidence", "threads", "t0", "float32", "shape"]
    leaves: list[Callable[[], Any]] = [
        lambda: draw.choice(words),
        lambda: draw.choice([None, True, 0, 1, -1, 10**30, 1.5, float("nan")]),
    ]
    if depth > 4 or draw.random() < 0.4:
        return draw.choice(leaves)()
    size = draw.randrange(4)
    if draw.random() < 0.4:
        return [_tree(draw, depth + 1) for _ in range(size)]
    return {draw.choice(words): _tree(draw, depth + 1) for _ in range(size)}


def test_random_frames_raise_nothing_else() -> None:
    """Ten thousand random frames: each is a reply, malformed, or no frame at all."""
    draw = random.Random(7)
    for _ in range(10_000):
        head = json.dumps(_tree(draw)).encode()
        body = draw.randbytes(draw.choice([0, 0, 0, 9, 40]))
        if draw.random() < 0.1:
            head = head[: draw.randrange(len(head) + 1)]
        try:
            protocol.reply(wire.decode(head, body))
        except (wire.WireError, protocol.Malformed):
            continue


def test_deep_frames() -> None:
    """Nesting deeper than any recursion is no frame."""
    for head in (b"[" * 100_000, b'{"$": "dict", "v": ' * 5_000, b"[" * 5_000 + b"]" * 5_000):
        with pytest.raises((wire.WireError, protocol.Malformed)):
            protocol.reply(wire.decode(head, b""))
