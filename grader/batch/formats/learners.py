"""feedback/WHO/SLUG.md: what a learner is told, to be handed on as it is."""

from collections.abc import Iterator

from grader.batch import judged
from grader.batch.feedback import Told, document
from grader.batch.records import Results


def files(results: Results, told: Told) -> Iterator[tuple[str, str, str]]:
    """Whose, what follows the name in the path, and the text, as in all such formats."""
    for one in judged.each(results):
        yield one.who, f"/{one.slug or 'no-kata'}.md", document(one, told)
