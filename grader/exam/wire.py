"""What crosses between examiner and stage: a JSON tree, with tensors as safetensors bytes.

Nothing here can run code when it is decoded, and every length is bounded before it is read.
"""

import base64
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from safetensors.torch import load, save

LIMIT_BYTES = 64 << 20
_MAX_NODES = 200_000
_MAX_DEPTH = 24
_HEADER = struct.Struct("!II")
_TAG = "$"
_DTYPES = {str(v)[6:]: v for v in vars(torch).values() if isinstance(v, torch.dtype)}


class WireError(Exception):
    """A message is malformed, too large or cannot be sent."""


@dataclass(frozen=True)
class Foreign:
    """Stands for an object that evidence has no form for: only its type's name crosses."""

    type: str


class _Encoder:
    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
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
            return {_TAG: "bytes", "v": base64.b64encode(value).decode()}
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
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            plain = torch.Tensor.detach(value)
            if plain.device.type == "meta":
                name = str(plain.dtype)[6:]
                return {_TAG: "meta", "shape": list(plain.shape), "dtype": name}
            if plain.layout != torch.strided or plain.is_quantized:
                return {_TAG: "foreign", "v": f"{plain.layout} tensor"}
            if plain.numel() * plain.element_size() > LIMIT_BYTES:
                raise WireError("evidence too large")
            name = f"t{len(self.tensors)}"
            self.tensors[name] = plain.resolve_conj().resolve_neg().cpu().contiguous().clone()
            return {_TAG: "tensor", "v": name}

    def _numpy(self, value: Any) -> Any:
        try:
            tensor = torch.as_tensor(value)
        except TypeError:
            return {_TAG: "foreign", "v": f"{type(value).__name__} of {value.dtype}"}
        return {_TAG: "array", "v": self._tensor(tensor)["v"]}


class _Decoder:
    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors

    def tree(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.tree(item) for item in value]
        if not isinstance(value, dict):
            return value
        match value:
            case {"$": "tensor", "v": str(name)}:
                return self.tensors[name]
            case {"$": "array", "v": str(name)}:
                return self.tensors[name].numpy()
            case {"$": "meta", "shape": list(shape), "dtype": str(dtype)}:
                return torch.empty(shape, dtype=_DTYPES[dtype], device="meta")
            case {"$": "dtype", "v": str(dtype)}:
                return _DTYPES[dtype]
            case {"$": "bytes", "v": str(text)}:
                return base64.b64decode(text)
            case {"$": "tuple", "v": list(items)}:
                return tuple(self.tree(item) for item in items)
            case {"$": "dict", "v": list(pairs)}:
                return {self.tree(k): self.tree(v) for k, v in pairs}
            case {"$": "foreign", "v": str(name)}:
                return Foreign(name)
        raise WireError("malformed evidence")


def encode(value: Any) -> bytes:
    """One frame. Raises WireError when the value is larger than a message may be."""
    encoder = _Encoder()
    try:
        head = json.dumps(encoder.tree(value)).encode()
    except RecursionError as error:
        raise WireError("evidence too large") from error
    body = save(encoder.tensors) if encoder.tensors else b""
    if len(head) + len(body) > LIMIT_BYTES:
        raise WireError("evidence too large")
    return _HEADER.pack(len(head), len(body)) + head + body


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
        return _Decoder(load(body) if body else {}).tree(tree)
    except WireError:
        raise
    except Exception as error:  # whatever a hostile frame provokes in json, safetensors or torch
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
