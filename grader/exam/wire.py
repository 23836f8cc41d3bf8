"""What crosses between examiner and stage: a JSON tree, and behind it the bytes of its tensors.

Nothing here can run code when it is decoded, and every length is bounded before it is read. A
tensor is written with its dtype, shape and place among the bytes; decoded, each is a copy.
"""

import ctypes
import json
import math
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

LIMIT_BYTES = 64 << 20
_MAX_NODES = 200_000
_MAX_DEPTH = 24
_MAX_DIMENSIONS = 64
_HEADER = struct.Struct("!II")
_TAG = "$"
_DTYPES = {str(v)[6:]: v for v in vars(torch).values() if isinstance(v, torch.dtype)}
# Those of which a tensor may cross; of quantized ones torch makes no plain tensor from bytes.
_CROSSING = {
    name: dtype
    for name, dtype in _DTYPES.items()
    if re.fullmatch(r"bool|(u?int|b?float|complex)(8|16|32|64|128)(_e\w+)?", name)
}
_NAMES = {dtype: name for name, dtype in _CROSSING.items()}


class WireError(Exception):
    """A message is malformed, too large or cannot be sent."""


@dataclass(frozen=True)
class Foreign:
    """Stands for an object that evidence has no form for: only its type's name crosses."""

    type: str


class _Encoder:
    def __init__(self) -> None:
        self.body = bytearray()
        self.nodes = 0

    def tree(self, value: Any, depth: int = 0) -> Any:
        self.nodes += 1
        if self.nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise WireError("evidence too large")
        kind = type(value)
        if value is None or kind in (bool, int, str, float):
            return value
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, torch.dtype):
            return {_TAG: "dtype", "v": str(value)[6:]}
        if isinstance(value, torch.device):
            return value.type
        if isinstance(value, bytes):
            return {_TAG: "bytes", "at": self._place(value), "size": len(value)}
        if isinstance(value, list):
            return [self.tree(item, depth + 1) for item in list.__iter__(value)]
        if isinstance(value, tuple):
            items = [self.tree(item, depth + 1) for item in tuple.__iter__(value)]
            return {_TAG: "tuple", "v": items}
        if isinstance(value, Mapping):
            pairs = [[self.tree(k, depth + 1), self.tree(v, depth + 1)] for k, v in value.items()]
            return {_TAG: "dict", "v": pairs}
        if kind.__module__ == "numpy":
            return self._numpy(value)
        if isinstance(value, (bool, int, str, float)):  # subclasses: their plain value
            plain = next(t for t in (bool, int, str, float) if isinstance(value, t))
            return plain.__new__(plain, value)  # type: ignore[type-var]
        return {_TAG: "foreign", "v": kind.__name__}

    def _tensor(self, value: torch.Tensor) -> Any:
        plain = torch.Tensor.detach(value)
        dtype = plain.dtype
        if plain.is_meta:
            return {_TAG: "meta", "shape": plain.shape, "dtype": str(dtype)[6:]}
        if plain.layout != torch.strided:
            return {_TAG: "foreign", "v": f"{plain.layout} tensor"}
        if dtype not in _NAMES:
            return {_TAG: "foreign", "v": f"{dtype} tensor"}
        size = plain.numel() * dtype.itemsize
        if size > LIMIT_BYTES:
            raise WireError("evidence too large")
        plain = plain.resolve_conj().resolve_neg().cpu().contiguous()
        at = self._place(ctypes.string_at(plain.data_ptr(), size))
        return {_TAG: "tensor", "dtype": _NAMES[dtype], "shape": plain.shape, "at": at}

    def _place(self, data: bytes) -> int:
        at = len(self.body)
        if at + len(data) > LIMIT_BYTES:
            raise WireError("evidence too large")
        self.body += data
        return at

    def _numpy(self, value: Any) -> Any:
        try:
            tensor = torch.as_tensor(value)
        except TypeError:
            return {_TAG: "foreign", "v": f"{type(value).__name__} of {value.dtype}"}
        return {**self._tensor(tensor), _TAG: "array"}


class _Decoder:
    def __init__(self, body: bytes) -> None:
        self.body, self.left = memoryview(body), len(body)

    def tree(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.tree(item) for item in value]
        if not isinstance(value, dict):
            return value
        match value:
            case {"$": "tensor", "dtype": str(dtype), "shape": list(shape), "at": int(at)}:
                return self._tensor(_CROSSING[dtype], shape, at)
            case {"$": "array", "dtype": str(dtype), "shape": list(shape), "at": int(at)}:
                return self._tensor(_CROSSING[dtype], shape, at).numpy()
            case {"$": "meta", "shape": list(shape), "dtype": str(dtype)}:
                return torch.empty(shape, dtype=_DTYPES[dtype], device="meta")
            case {"$": "dtype", "v": str(dtype)}:
                return _DTYPES[dtype]
            case {"$": "bytes", "at": int(at), "size": int(size)}:
                return bytes(self._piece(at, size))
            case {"$": "tuple", "v": list(items)}:
                return tuple(self.tree(item) for item in items)
            case {"$": "dict", "v": list(pairs)}:
                return {self.tree(k): self.tree(v) for k, v in pairs}
            case {"$": "foreign", "v": str(name)}:
                return Foreign(name)
        raise WireError("malformed evidence")

    def _piece(self, at: int, size: int) -> memoryview:
        """Bytes of the body, of which none belongs to two values: all are no more than came."""
        self.left -= size
        if min(at, size, self.left) < 0 or at + size > len(self.body):
            raise WireError("malformed evidence: the size of a tensor or of bytes")
        return self.body[at : at + size]

    def _tensor(self, dtype: torch.dtype, shape: list[Any], at: int) -> torch.Tensor:
        if len(shape) > _MAX_DIMENSIONS:
            raise WireError("malformed evidence: a tensor's shape")
        for size in shape:
            if type(size) is not int or size < 0:
                raise WireError("malformed evidence: a tensor's shape")
        piece = self._piece(at, math.prod(shape) * dtype.itemsize)
        if not piece:
            return torch.empty(shape, dtype=dtype)
        own = bytearray(piece)
        if dtype is torch.bool:  # whatever the byte
            return torch.frombuffer(own, dtype=torch.uint8).ne(0).reshape(shape)
        return torch.frombuffer(own, dtype=dtype).reshape(shape)


def encode(value: Any) -> bytes:
    """One frame. Raises WireError when the value is larger than a message may be."""
    encoder = _Encoder()
    try:
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            tree = encoder.tree(value)
        head = json.dumps(tree).encode()
    except RecursionError as error:
        raise WireError("evidence too large") from error
    if len(head) + len(encoder.body) > LIMIT_BYTES:
        raise WireError("evidence too large")
    return _HEADER.pack(len(head), len(encoder.body)) + head + encoder.body


def lengths(header: bytes) -> tuple[int, int]:
    """How many bytes of tree and tensors follow. Raises WireError if more than allowed."""
    head, body = _HEADER.unpack(header)
    if head + body > LIMIT_BYTES:
        raise WireError("evidence too large")
    return head, body


HEADER_BYTES = _HEADER.size


def decode(head: bytes, body: bytes) -> Any:
    """The value of a frame. Raises WireError for anything that is not one."""

    def refuse(text: str) -> NoReturn:
        raise WireError(f"malformed evidence: {text}")

    try:
        tree = json.loads(head)
        return _Decoder(body).tree(tree)
    except WireError:
        raise
    except Exception as error:  # whatever a hostile frame provokes in json or torch
        refuse(type(error).__name__)


def receive(sock: socket.socket) -> Any:
    """The next value from a peer that is trusted to send one (the stage's side).

    Raises EOFError when the peer is gone.
    """

    def exactly(count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = sock.recv(min(count - len(data), 1 << 20))
            if not chunk:
                raise EOFError
            data += chunk
        return bytes(data)

    head, body = lengths(exactly(HEADER_BYTES))
    return decode(exactly(head), exactly(body))
