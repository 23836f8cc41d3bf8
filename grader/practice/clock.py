"""What time it is. `KATA_CLOCK` (an ISO time with its zone) has the process begin at that time."""

import os
import time
from datetime import UTC, datetime, timedelta

_BEGAN = time.monotonic()


def now() -> datetime:
    """The present time, UTC."""
    if text := os.environ.get("KATA_CLOCK"):
        passed = timedelta(seconds=time.monotonic() - _BEGAN)
        return datetime.fromisoformat(text).astimezone(UTC) + passed
    return datetime.now(UTC)
