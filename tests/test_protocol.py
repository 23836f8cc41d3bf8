"""What comes from a stage is a typed reply or malformed, whatever it is."""

import json
import math
import random
from collections import OrderedDict
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


@pytest.mark.parametrize(
    "value",
    [
        math.inf,
        -math.inf,
        -0.0,
        1e-320,
        10**30,
        True,
        "",
        "α\x00\x1b",
        "half a pair: \ud83d",
        "\udcff\ud800",
        b"\xff",
        {1: "a", (2, None): {"b": ()}, None: []},
        {"$": "tensor"},
        [[[]], {}, ((),)],
    ],
    ids=ascii,
)
def test_plain_values_come_through(value: Any) -> None:
    """Numbers, texts and trees of them are what they were, of the same types."""
    got = _sent({"id": 1, "evidence": [value, {"v": (value,)}]}).evidence
    assert repr(got) == repr([value, {"v": (value,)}])


def test_what_is_no_number_comes_through() -> None:
    """So is NaN, and an OrderedDict in its own order, and a value of a subclass."""

    class Size(int):
        pass

    turned = OrderedDict(a=math.nan, b=Size(3))
    turned.move_to_end("a")
    got = _sent({"id": 1, "evidence": turned}).evidence
    assert list(got) == ["b", "a"]
    assert type(got["b"]) is int
    assert math.isnan(got["a"])


def test_evidence_that_is_too_large() -> None:
    """Neither many values nor deep ones are sent, however they are nested."""
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    ring: list[Any] = []
    ring.append(ring)
    many = [[0] * 150_000, [0] * 150_000]
    for value in (deep, ring, many, {"a": many}, dict.fromkeys(range(250_000))):
        with pytest.raises(wire.WireError):
            wire.encode({"id": 1, "evidence": value})


def _numbers(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 3).to(dtype)


@pytest.mark.parametrize(
    "dtype",
    [
        "float32",
        "float64",
        "bfloat16",
        "float16",
        "int8",
        "int64",
        "uint8",
        "bool",
        "complex64",
        "complex128",
        "int32",
    ],
)
def test_tensors_come_through(dtype: str) -> None:
    """Values, shape and dtype are kept: also of single values, empty ones, views and ones that
    require a gradient; each is a copy of its own."""
    kind = getattr(torch, dtype)
    whole = _numbers(kind, 4, 3)
    for sent in (whole, whole.T, whole[::2, 1:], whole[0, 0], whole[:0], _numbers(kind, 1)):
        got = _sent({"id": 1, "evidence": [sent, sent]}).evidence
        for tensor in got:
            assert tensor.dtype == kind
            assert tensor.shape == sent.shape
            assert torch.equal(tensor, sent)
        assert not got[0].numel() or got[0].data_ptr() != got[1].data_ptr()
    if kind.is_complex:
        for sent in (whole.conj(), whole.conj().imag):
            assert torch.equal(_sent({"id": 1, "evidence": sent}).evidence, sent)
    if kind.is_floating_point:
        learned = torch.nn.Parameter(whole)
        assert torch.equal(_sent({"id": 1, "evidence": learned}).evidence, whole)


TENSOR = {"$": "tensor", "dtype": "float32", "shape": [2], "at": 0}
BAD_TENSORS: dict[str, dict[str, Any]] = {
    "longer than the body": {"shape": [3]},
    "beyond the body": {"at": 4},
    "before the body": {"at": -4},
    "of negative size": {"shape": [-1, -2]},
    "larger than any memory": {"shape": [1 << 62, 1 << 62]},
    "empty and larger than any memory": {"shape": [0, 1 << 70]},
    "of no whole size": {"shape": [1.5]},
    "of true size": {"shape": [True, 2]},
    "of unknown dtype": {"dtype": "float33"},
    "of quantized dtype": {"dtype": "quint4x2"},
    "of too many dimensions": {"shape": [1] * 200},
    "without a place": {"at": None},
    "at half a place": {"at": 0.5},
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_bad_tensors_are_no_frames(name: str) -> None:
    """A tensor that its frame does not hold is malformed, whatever its numbers say."""
    good, body = json.dumps(TENSOR).encode(), bytes(8)
    assert wire.decode(good, body).tolist() == [0.0, 0.0]
    with pytest.raises(wire.WireError):
        wire.decode(json.dumps({**TENSOR, **BAD_TENSORS[name]}).encode(), body)


@pytest.mark.parametrize("place", [{"size": 9}, {"at": 1}, {"at": -1}, {"size": -1}, {"at": "0"}])
def test_bad_bytes_are_no_frames(place: dict[str, Any]) -> None:
    """So are bytes that their frame does not hold."""
    good = {"$": "bytes", "at": 0, "size": 8}
    assert wire.decode(json.dumps(good).encode(), b"12345678") == b"12345678"
    with pytest.raises(wire.WireError):
        wire.decode(json.dumps({**good, **place}).encode(), b"12345678")


@pytest.mark.parametrize("one", [TENSOR, {"$": "bytes", "at": 0, "size": 8}])
def test_no_byte_of_a_frame_is_two_values(one: dict[str, Any]) -> None:
    """A small frame does not become large by naming its bytes again and again."""
    with pytest.raises(wire.WireError):
        wire.decode(json.dumps([one, one]).encode(), bytes(8))


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
    if draw.random() < 0.1:
        shape = [draw.choice([0, 1, 2, 3, -1, 1 << 40]) for _ in range(draw.randrange(4))]
        dtype = draw.choice(["float32", "bool", "complex64", "quint8", "float8_e4m3fn", "bits16"])
        return {**TENSOR, "dtype": dtype, "shape": shape, "at": draw.randrange(-2, 30)}
    words = ["$", "v", "tensor", "dict", "tuple", "meta", "bytes", "foreign", "dtype", "array"]
    words += [
        "text",
        "float",
        "k",
        "nan",
        "id",
        "raised",
        "trouble",
        "kind",
        "evidence",
        "threads",
        "t0",
        "float32",
        "shape",
    ]
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
