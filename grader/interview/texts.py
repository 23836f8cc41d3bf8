"""The texts that a report takes beside paper and events: from the catalogue, and of what was coded
from the versions kept."""

from grader import catalog
from grader.exam import source_text
from grader.harmless import harmless
from grader.interview.events import State
from grader.interview.paper import Kind, Paper
from grader.interview.report import Texts
from grader.practice import stubs
from grader.store import Store


def read(paper: Paper, state: State) -> Texts:
    """What there is of them; a kata that has left the catalogue has none."""
    slugs = {r.slug for r in paper.rounds if r.slug in catalog.slugs()}
    coded = {r.slug for r in paper.rounds if r.kind is Kind.CODING} & slugs
    graded = {g.sha256 for round in state.rounds for _, g in round.gradings}
    with Store.open(create=False) as store:
        kept = [s for slug in coded if slug for s in store.attempts.snapshots(slug)]
    return Texts(
        titles={(s, bug.id): bug.title for s in slugs if s for bug in catalog.entry(s).bugs},
        code={s.sha256: _shown(s.source) for s in kept if s.sha256 in graded},
        references={slug: stubs.solution(slug) for slug in coded if slug},
    )


def _shown(source: bytes) -> str:
    text = source_text.decoded(source)
    return harmless(text if isinstance(text, str) else source.decode(errors="replace"))
