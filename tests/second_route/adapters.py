"""The numeric answers of questions/adapters.yaml once more, by queueing time and by counting."""

from collections.abc import Callable

from torch import nn


def latency(rate: int, latency: float) -> float:
    """Lay an hour of requests end to end, with and without adapters, and divide by the hour."""
    hour_ms = 3_600_000
    requests = rate * 3600
    return (requests * latency) / hour_ms - (requests * 19.8) / hour_ms


def bottleneck_count(layers: int, d: int, m: int) -> float:
    """Build the adapters on meta and count what they hold."""

    def adapter() -> nn.Module:
        return nn.Sequential(
            nn.Linear(d, m, device="meta"), nn.GELU(), nn.Linear(m, d, device="meta")
        )

    model = nn.ModuleList(
        nn.ModuleDict({"after_attention": adapter(), "after_ffn": adapter()}) for _ in range(layers)
    )
    return sum(p.numel() for p in model.parameters())


ROUTES: dict[str, Callable[..., float]] = {
    "adapters-latency": latency,
    "adapters-bottleneck-count": bottleneck_count,
}
