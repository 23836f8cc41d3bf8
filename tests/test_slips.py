"""The real bank: what is said of wrong numbers, and which questions and katas name each other."""

import itertools
import random
import re

import msgspec
import pytest

from grader import catalog
from grader.recall import bank, numbers
from grader.recall.bank import Question
from grader.recall.numbers import Numeric

NUMERIC = {question.id: question for question in bank.load() if question.numeric is not None}


def _numeric(question: Question) -> Numeric:
    assert question.numeric is not None
    return question.numeric


@pytest.mark.parametrize("id", NUMERIC)
def test_slips_are_told_by_their_own_words(id: str) -> None:
    """Over all draws a slip is never right, never within the tolerance of another, and what is
    said of its number is its own text, not another's and no general rule's."""
    numeric = _numeric(NUMERIC[id])
    assert numeric.slips
    for names in numbers.all_draws(numeric):
        values = [numbers.value(slip.value, names) for slip in numeric.slips]
        for value, slip in zip(values, numeric.slips):
            judged = numbers.judge(numeric, names, f"{value:.12g}")
            assert not judged.correct, (slip.value, names)
            assert judged.why == numbers.filled(slip.why, names), (slip.value, names)
        for one, other in itertools.combinations(values, 2):
            assert not numbers.close(one, other, numeric.tolerance), (one, other, names)


@pytest.mark.parametrize("id", NUMERIC)
def test_other_wrong_numbers_are_rarely_told(id: str) -> None:
    """Of a wrong number between half and twice the answer that no slip gives, no general rule
    claims to know more than one in forty."""
    numeric = _numeric(NUMERIC[id])
    bare = msgspec.structs.replace(numeric, slips=())
    chance, told, asked = random.Random(id), 0, 0
    draws = list(numbers.all_draws(numeric))
    for _ in range(1500):
        names = chance.choice(draws)
        typed = numbers.value(numeric.answer, names) * chance.uniform(0.5, 2)
        judged = numbers.judge(bare, names, f"{typed:.12g}")
        asked += not judged.correct
        told += judged.why is not None
    assert told <= asked / 40, (told, asked)


def test_examples_of_an_answer_give_none_away() -> None:
    """What the line before the answer offers to type is the answer to no question in that unit,
    nor does it stand in its text."""
    for question in NUMERIC.values():
        numeric = _numeric(question)
        line = numbers.wanted(numeric.unit).partition("such as ")[2]
        examples = re.split(r", | or ", line)
        text = f"{question.prompt} {question.answer} {question.points}"
        for example in examples:
            whole = rf"(?<![\d.]){re.escape(example)}(?!\d)"
            assert not re.search(whole, text), (question.id, example)
            for names in numbers.all_draws(numeric):
                judged = numbers.judge(numeric, names, example)
                assert not judged.correct, (question.id, example, names)


def test_katas_and_questions_name_each_other() -> None:
    """Each kata has questions; each question that a kata's mistakes name is there and names the
    kata; and each kata has a mistake that some question drills."""
    questions = {question.id: question for question in bank.load()}
    for slug in catalog.slugs():
        assert [id for id, question in questions.items() if slug in question.katas], slug
        drilled = {bug.id: bug.question for bug in catalog.entry(slug).bugs if bug.question}
        assert drilled, slug
        for bug, id in drilled.items():
            assert id in questions, (slug, bug, id)
            assert slug in questions[id].katas, (slug, bug, id)
