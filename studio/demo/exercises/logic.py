"""Orders, syllogisms, sequences, odd ones out and boolean expressions."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from string import ascii_uppercase

from studio.demo.exercises.base import Exercise, in_words, word_list
from studio.demo.exercises.words import KINDS, NAMES

# more, less, most, least
_ORDERS = (
    ("taller", "shorter", "tallest", "shortest"),
    ("older", "younger", "oldest", "youngest"),
    ("heavier", "lighter", "heaviest", "lightest"),
    ("faster", "slower", "fastest", "slowest"),
)
_NONSENSE = word_list("bloops razzes lops wugs daxes zibs fips morks tems quills glims snarks plonks vims jabs norps")
_IFS = (
    ("it rains", "the grass is wet", "it does not rain", "the grass is not wet", "Is the grass wet?", "Does it rain?"),
    (
        "the sun shines",
        "the room is warm",
        "the sun does not shine",
        "the room is not warm",
        "Is the room warm?",
        "Does the sun shine?",
    ),
    (
        "the bell rings",
        "the class is over",
        "the bell does not ring",
        "the class is not over",
        "Is the class over?",
        "Does the bell ring?",
    ),
    (
        "the cat sleeps",
        "the mouse plays",
        "the cat does not sleep",
        "the mouse does not play",
        "Does the mouse play?",
        "Does the cat sleep?",
    ),
    (
        "the lamp is on",
        "the room is bright",
        "the lamp is not on",
        "the room is not bright",
        "Is the room bright?",
        "Is the lamp on?",
    ),
    (
        "the door is open",
        "the dog barks",
        "the door is not open",
        "the dog does not bark",
        "Does the dog bark?",
        "Is the door open?",
    ),
)


def exercise(rng: Random) -> Exercise:
    """One exercise of class "logic"; its answer is a name, a word, a number, "Yes." or "No." and the like."""
    prompt, answer, thought = rng.choices(_FORMS, _WEIGHTS)[0](rng)
    return Exercise("logic", prompt, answer, thought)


def _order(rng: Random) -> tuple[str, str, str]:
    more, less, most, least = rng.choice(_ORDERS)
    people = rng.sample(NAMES, rng.choice((2, 3, 3)))
    if rng.random() < 0.6:
        facts = [f"{high} is {more} than {low}." for high, low in pairwise(people)]
    else:
        facts = [f"{low} is {less} than {high}." for low, high in pairwise(people[::-1])]
    premises = " ".join(facts)
    thought = f"{most}: " + " > ".join(people)
    if len(people) == 2 or rng.random() < 0.6:
        if rng.random() < 0.5:
            word = more if len(people) == 2 else most
            return f"{premises} Who is {word if len(people) == 2 else 'the ' + word}?", people[0], thought
        word = less if len(people) == 2 else least
        return f"{premises} Who is {word if len(people) == 2 else 'the ' + word}?", people[-1], thought
    first, second = rng.sample((0, 2), 2)
    return f"{premises} Is {people[first]} {more} than {people[second]}?", "Yes." if first < second else "No.", thought


def _syllogism(rng: Random) -> tuple[str, str, str]:
    a, b, c = rng.sample(_NONSENSE, 3)
    form = rng.randrange(4)
    name = rng.choice(NAMES)
    if form == 0:
        return f"All {a} are {b}. All {b} are {c}. Are all {a} {c}?", "Yes.", f"{a} in {b} in {c}"
    if form == 1:
        return f"All {a} are {b}. No {b} are {c}. Are any {a} {c}?", "No.", f"{a} in {b}, {b} not {c}"
    if form == 2:
        return f"All {a} are {b}. {name} is one of the {a}. Is {name} one of the {b}?", "Yes.", f"{name} in {a} in {b}"
    return f"No {a} are {b}. {name} is one of the {a}. Is {name} one of the {b}?", "No.", f"{name} in {a}, {a} not {b}"


def _sequence(rng: Random) -> tuple[str, str, str]:
    form = rng.randrange(4)
    if form == 0:
        step, start = rng.randint(1, 3), rng.randint(1, 10)
        terms = [start + step * i for i in range(5)]
        why = f"add {step}"
    elif form == 1:
        step, start = rng.randint(1, 3), rng.randint(12, 20)
        terms = [start - step * i for i in range(5)]
        why = f"subtract {step}"
    elif form == 2:
        start = rng.randint(1, 5)
        terms = [start * 2**i for i in range(5)]
        why = "double"
    else:
        first = rng.randrange(22)
        letters = ascii_uppercase[first : first + 5]
        ask = rng.choice(("What comes next: {}?", "Which letter follows: {}?"))
        return ask.format(in_words(letters[:4])), letters[4], f"after {letters[3]}"
    ask = rng.choice(("What comes next: {}?", "Continue the sequence: {}.", "Which number follows: {}?"))
    return ask.format(in_words(terms[:4])), str(terms[4]), why


def _odd_one(rng: Random) -> tuple[str, str, str]:
    kind, other = rng.sample(sorted(KINDS), 2)
    words = rng.sample(KINDS[kind], 3)
    odd = rng.choice(KINDS[other])
    mixed = [*words, odd]
    rng.shuffle(mixed)
    ask = rng.choice(("Which is the odd one out: {}?", "Find the odd one out: {}.", "Which word does not belong: {}?"))
    return ask.format(in_words(mixed)), odd, f"{odd}: {other}, the rest: {kind}"


def _boolean(rng: Random) -> tuple[str, str, str]:
    def leaf() -> tuple[str, bool]:
        value = rng.random() < 0.5
        return (f"not {value}", not value) if rng.random() < 0.35 else (str(value), value)

    (left, a), (right, b) = leaf(), leaf()
    operator = rng.choice(("and", "or"))
    value = (a and b) if operator == "and" else (a or b)
    text, thought = f"{left} {operator} {right}", f"{a} {operator} {b}"
    ask = rng.choice(("Is this true or false: {}?", "What is the truth value of {}?", "Evaluate: {}."))
    return ask.format(text), f"{value}.", thought


def _implication(rng: Random) -> tuple[str, str, str]:
    cause, effect, no_cause, no_effect, ask_effect, ask_cause = rng.choice(_IFS)
    opening = rng.choice(("", "Think: ", "Puzzle: ", f"{rng.choice(NAMES)} says: ", f"{rng.choice(NAMES)} asks: "))
    rule = f"if {cause}, {effect}." if opening else f"If {cause}, {effect}."
    capital = str.capitalize
    form = rng.randrange(4)
    if form == 0:
        return f"{opening}{rule} {capital(cause)}. {ask_effect}", "Yes.", f"{cause}, so {effect}"
    if form == 1:
        return f"{opening}{rule} {capital(no_effect)}. {ask_cause}", "No.", f"{no_effect}, so {no_cause}"
    if form == 2:
        return f"{opening}{rule} {capital(no_cause)}. {ask_effect}", "We cannot know.", "the rule says nothing here"
    return f"{opening}{rule} {capital(effect)}. {ask_cause}", "We cannot know.", "the rule says nothing here"


_FORMS = (_order, _syllogism, _sequence, _odd_one, _boolean, _implication)
# Few orders: the model guesses at them, however many it sees.
_WEIGHTS = (1, 3, 3, 4, 3, 3)
