"""What a model settled on is read out of the many ways models say it, and nothing is read where nothing is said."""

from __future__ import annotations

import time
from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.evaluate.tasks.letters import letter_of
from studio.evaluate.tasks.matching import final_answer, matched, normalise, same

OPTIONS = ["Paris", "London", "A car", "the answer is none", "Rome", "Oslo", "Bern", "Wien", "Riga", "Kiev"]

SAID = [
    ("The answer is (C).", "C"),
    ("The answer is C", "C"),
    ("the correct answer is **C**.", "C"),
    ("**Answer:** C", "C"),
    ("**Answer: C**", "C"),
    ("Answer: (C) Paris", "C"),
    ("ANSWER: C", "C"),
    ("Final answer: C.", "C"),
    ("Final Answer: \\boxed{C}", "C"),
    ("\\boxed{\\text{C}}", "C"),
    ("$\\boxed{C}$", "C"),
    ("\\(\\boxed{\\textbf{(C)}}\\)", "C"),
    ("The final answer is $\\boxed{C}$.", "C"),
    ("answer is (c)", "C"),
    ("Therefore, the answer is: **C) Rome**", "C"),
    ("The best option is C because A is wrong.", "C"),
    ("The correct option is option C.", "C"),
    ("So, the correct choice is letter C.", "C"),
    ("I would go with C.", "C"),
    ("I choose (C).", "C"),
    ("C is correct.", "C"),
    ("(C) is the correct answer.", "C"),
    ("**C** is the right choice.", "C"),
    ("Option C is the best answer", "C"),
    ("C", "C"),
    ("(C)", "C"),
    ("C.", "C"),
    ("C) Rome", "C"),
    ("C. Rome is in Italy", "C"),
    ("**C**", "C"),
    ('"C"', "C"),
    ("[C]", "C"),
    ("c", "C"),
    ("The answer is A. Wait, no. The answer is C.", "C"),
    ("The answer is not A. The answer is C.", "C"),
    ("The answer is therefore most likely C.", "C"),
    ("The answer to the question is C.", "C"),
    ("The answer = C", "C"),
    ("Answer → C", "C"),
    ("the answer should be (C)", "C"),
    ("Thinking about it...\nC", "C"),
    ("Reasoning.\n\n(C)", "C"),
    ("Paris", "A"),
    ("The capital.\nLondon", "B"),
    ("The answer is I.", "I"),
    ("The answer is J: Kiev", "J"),
    ("So the answer must be **(D)**", "D"),
    ("The answer is $D$.", "D"),
    ("The answer is \\textbf{D}.", "D"),
    ("The answer is `D`", "D"),
    ("<answer>D</answer>", "D"),
    ("Answer - D", "D"),
    ("My answer: D", "D"),
    ("Correct answer: Option D", "D"),
    ('The answer is "D".', "D"),
    ("The answer is (D) not (A).", "D"),
    ("D: the answer is none", "D"),
    ("The right answer would be D, since A is false.", "D"),
    ("The answer is option (D), London", "D"),
    ("Answer\nD", "D"),
    ("### Answer\n\n**F. Oslo**", "F"),
    ("Hence D.", "D"),
    ("Thus the answer is\n\nD", "D"),
    ("The answer is (C", "C"),
    ("The answer is (C)", "C"),
]
UNSAID = [
    "The answer is A or B.",
    "The answer is either A or B",
    "A man walks into a bar.",
    "I think it is complicated.",
    "The answer is I think unclear.",
    "The answer is a car.",
    "The answer is unclear.",
    "The answer is K.",
    "",
    "Option A is wrong and B too.",
    "The answer isn't A",
    "The correct answer is not (A)",
    "none",
]
MATCHES = [
    ("12", "12", True),
    ("The answer is 12.", "12", True),
    ("x = 12 apples", "12", True),
    ("5 + 7 = 12", "12", True),
    ("\\boxed{12}", "12", True),
    ("so \\boxed{\\frac{1}{2}}", "\\frac{1}{2}", True),
    ("#### 1,000", "1000", True),
    ("The answer is $1,000.00", "1000", True),
    ("Answer: Paris, France", "Paris", False),
    ("Answer: Paris", "paris", True),
    ("The answer is 13. It is not 12.", "12", False),
    ("I do not know 12 from 13", "12", False),
    ("**Answer:** 12", "12", True),
    ("The answer is **12**.", "12", True),
    ("7 coins", "7 coins", True),
    ("-5", "−5", True),
    ("The answer is -5", "5", False),
    ("3.0", "3", True),
    ("The answer is 3.14. So.", "3.14", True),
    ("50%", "50%", True),
    ("The answer is 50\\%", "50%", True),
    ("1e3", "1000", True),
    ("12 or 13", "12", False),
    ("The answer is New York. It is big.", "New York", True),
    ("\\boxed{x", "x", False),
    ('the answer is "yes"', "Yes", True),
    ("\\boxed{\\text{yes}}", "yes", True),
    ("1. a\n2. b", "2. b", True),
    ("The answer is 2.", "2", True),
    ("v1.2", "1.2", False),
    ("12kg", "12", False),
    ("", "x", False),
]


@pytest.mark.parametrize(("text", "letter"), SAID)
def test_a_letter_is_read_however_it_is_said(text: str, letter: str) -> None:
    assert letter_of(text, OPTIONS) == letter


@pytest.mark.parametrize("text", UNSAID)
def test_no_letter_is_made_up(text: str) -> None:
    assert letter_of(text, OPTIONS) is None


@given(st.sampled_from(SAID), st.sampled_from(ascii_uppercase[:10]))
def test_what_is_said_last_counts(first: tuple[str, str], letter: str) -> None:
    assert letter_of(f"{first[0]}\n\nNo, I was wrong.\n\nThe answer is ({letter}).", OPTIONS) == letter


@pytest.mark.parametrize("text", ["The answer is (C).", "C", "C) Rome", r"\boxed{C}", "I choose C."])
def test_a_letter_that_no_option_has_is_none(text: str) -> None:
    assert letter_of(text, ["Mars", "Venus"]) is None


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    assert letter_of(text, OPTIONS) in (None, *ascii_uppercase[:10])
    matched(text, ["x"])


@pytest.mark.parametrize(
    "text",
    [
        "A " * 50_000,
        "answer is " * 10_000,
        "the answer is " + "(" * 100_000,
        "answer to " * 10_000,
        "\\text{" * 20_000,
        "the answer is " + "most likely " * 10_000,
        "**" * 50_000,
        "\\boxed{" * 15_000,
        "1," * 50_000,
        "answer is" + " " * 100_000,
    ],
    ids=lambda text: text[:16],
)
def test_endless_repetition_is_read_in_no_time(text: str) -> None:
    started = time.process_time()
    letter_of(text, OPTIONS)
    matched(text, ["1"])
    assert time.process_time() - started < 3  # a pattern that backtracks takes hours


@pytest.mark.parametrize(("text", "accepted", "right"), MATCHES)
def test_a_final_answer_is_compared_by_what_it_says(text: str, accepted: str, right: bool) -> None:
    assert matched(text, [accepted]).right == right


def test_any_accepted_answer_will_do_and_silence_is_none() -> None:
    assert matched("The answer is UK.", ["United Kingdom", "UK"]).right
    assert matched(" \n", ["x"]).given is None


@given(st.integers(-(10**9), 10**9))
def test_numbers_are_equal_when_their_values_are(number: int) -> None:
    assert same(str(number), f"{number:,}") and same(f"{number}.0", f"The answer is {number}.".split()[-1])
    assert not same(str(number), str(number + 1))
    assert final_answer(f"Work: 1 + 2.\nThe answer is {number}.") == str(number)


@given(st.text(max_size=80))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
