"""What a stage may say: the closed set of typed messages that come over the wire.

A reply is built on the stage as plain data and becomes a `Reply` in the examiner, here alone.
Whatever is not one is `Malformed`; the session makes a failing `crash` verdict of it.
"""

from typing import Any

import msgspec

from grader.exam.verdict import Trouble


class Malformed(Exception):
    """What came is no reply."""


class Raised(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An exception in a probe: qualified names of its class and bases, its text, and the story
    with the submission's lines. `missing`: a name of the contract is not there; `unwritten`:
    it is the stub's NotImplementedError; `deliberate`: a `raise` of the submission's own."""

    types: list[str]
    text: str
    story: str
    missing: bool
    unwritten: bool
    deliberate: bool
    memory: bool


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The answer to request `id`: a probe's evidence, or one of what can stand in its place.

    threads: how many the submission left running. trouble: the source could not be loaded.
    unsendable: why the evidence has no form. left: what of torch's global state a call has
    changed. changed: arguments that were changed in place. replaced: something the probes rely
    on, and which is not what it was. tampered: names anywhere in torch that are not what they
    were, where a stage looks for them.
    """

    id: int
    threads: int = 0
    evidence: Any = None
    trouble: Trouble | None = None
    raised: Raised | None = None
    unsendable: str | None = None
    left: list[str] = []
    changed: list[str] = []
    replaced: str | None = None
    tampered: list[str] = []


def reply(value: Any) -> Reply:
    """A decoded message as a Reply. Raises Malformed for anything else."""
    try:
        return msgspec.convert(value, Reply)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Malformed(str(error)) from error
