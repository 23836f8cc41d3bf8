"""verify: whether the suites are as they should be."""

import click

from grader import catalog
from grader.cli import common, terminal


@click.command("verify")
@click.argument("slugs", type=common.Slug(), nargs=-1, metavar="[SLUG]...")
@click.option("--mutants", is_flag=True, help="Instead: small edits of each solution must fail.")
@common.as_json
def verify_command(slugs: tuple[str, ...], mutants: bool, json_: bool) -> int:
    """Check that each suite passes its solution and catches and names every catalogued bug."""
    from grader.exam import selfcheck
    from grader.views import findings

    chosen = list(dict.fromkeys(slugs)) or [card.slug for card in catalog.cards()]
    found: list[selfcheck.Finding] = []
    edited: list[selfcheck.Mutated] = []
    if mutants:
        for edits in selfcheck.each(selfcheck.mutate, chosen):
            edited.append(edits)
            if not json_:
                terminal.say(*findings.of_edits(edits, terminal.colour()))
    else:
        for slug, mine in zip(chosen, selfcheck.each(selfcheck.verify, chosen), strict=True):
            found += mine
            if not json_:
                terminal.say(*findings.of_kata(slug, mine, terminal.colour()))
    good = all(f.ok for f in found) and all(e.ok for e in edited)
    if json_:
        terminal.say_json({"passed": good, "edits" if mutants else "findings": edited or found})
    elif mutants:
        terminal.say(findings.all_edits(edited))
    else:
        terminal.say(findings.total(found))
    return 0 if good else 1
