"""list, show: what there is to do."""

import click

from grader import catalog
from grader.cli import common
from grader.practice.progress import Progress, Standing

_STATUS = {"none": "", "core": "core", "complete": "passed"}


@click.command("list")
@click.option("--track", type=click.Choice(catalog.TRACKS), help="This track alone.")
@common.as_json
def list_command(track: str | None, json_: bool) -> None:
    """Katas in teaching order, with status, best time and par time."""
    with Progress.open(create=False) as progress:
        standings = progress.standings()
    cards = [card for card in catalog.cards() if track in (None, card.track)]
    rows = [(card, standings.get(card.slug, Standing())) for card in cards]
    if json_:
        import msgspec

        katas = [
            {
                "slug": card.slug,
                "title": card.title,
                "track": card.track,
                "difficulty": card.difficulty,
                "minutes": card.minutes,
                "level": standing.level,
                "attempts": standing.attempts,
                "best_seconds": standing.best_s,
            }
            for card, standing in rows
        ]
        click.echo(msgspec.json.encode({"katas": katas}))
        return
    wide = max((len(card.slug) for card, _ in rows), default=4)
    last = None
    for card, standing in rows:
        if card.track != last:
            last = card.track
            click.secho(f"{card.track}", bold=True)
            click.echo(f"  {'kata':{wide}}  {'status':7} {'best':>6} {'par':>7}  difficulty")
        tried = f"{standing.attempts} tried" if standing.attempts else "new"
        status = _STATUS[standing.level] or tried
        best = common.minutes(standing.best_s)
        par = f"{card.minutes} min"
        click.echo(f"  {card.slug:{wide}}  {status:7} {best:>6} {par:>7}  {card.difficulty}")
    click.echo("Next: kata show SLUG, kata start SLUG" if rows else "No kata in this track yet.")


@click.command("show")
@common.slug
def show_command(slug: str) -> None:
    """The task SLUG: contract, checked rules, tolerance, par time."""
    from grader.exam.verdict import CORE, Part
    from grader.practice import contract

    card = catalog.card(slug)
    click.secho(f"{slug}: {card.title}", bold=True)
    click.echo(f"{card.track}, {card.difficulty}, par {card.minutes} minutes\n")
    click.echo(contract.outline(slug))
    rules = contract.rules(slug)
    for heading, core in (("Core", True), ("Follow-ups", False)):
        click.secho(f"\n{heading}", bold=True)
        for part in Part:
            if (part in CORE) is core and part in rules:
                for number, rule in enumerate(rules[part]):
                    click.echo(f"  {part if not number else '':9} {rule}")
    click.echo(
        "\nTolerance (relative, absolute): float32 1e-4, 1e-5; float64 1e-9; bfloat16 4e-2, "
        "unless stated.\nInputs are drawn anew each run; --seed replays one."
    )
    click.echo(f"Next: kata start {slug}")
