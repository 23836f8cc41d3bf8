"""Who is at fault, and with which exit code the command line ends.

A wrong submission is no exception: it is a Verdict. These are for everything else.
"""


class KataError(Exception):
    """Something to tell the user in one or two plain lines."""

    exit_code = 3


class UsageFault(KataError):
    """The command was given something it cannot use."""

    exit_code = 2


class UnknownSlug(UsageFault):
    """No kata of that name; `near` holds the closest ones."""

    def __init__(self, text: str, near: list[str]) -> None:
        self.text, self.near = text, near
        ask = f" Did you mean {' or '.join(near)}?" if near else " `kata list` shows them all."
        super().__init__(f"No kata is called '{text}'.{ask}")


class StoreError(KataError):
    """The progress file cannot be used; the message says why and what to do."""


class ContentError(KataError):
    """A catalogue entry, suite or solution of ours is broken."""


class GraderError(KataError):
    """The grader itself failed; the submission was not judged."""
