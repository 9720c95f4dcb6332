"""Facts about elements, planets, animals, units, the body and matter, asked in many words and both directions.

What is held out is a wording, never a fact: a fact that was never told cannot be known.
"""

from __future__ import annotations

from random import Random

from studio.demo.exercises.base import Exercise, word_list

_ELEMENTS = {
    name: (symbol, number)
    for number, (name, symbol) in enumerate(
        (
            pair.split(":")
            for pair in word_list(
                "hydrogen:H helium:He lithium:Li beryllium:Be boron:B carbon:C nitrogen:N oxygen:O fluorine:F neon:Ne "
                "sodium:Na magnesium:Mg aluminium:Al silicon:Si phosphorus:P sulfur:S chlorine:Cl argon:Ar potassium:K "
                "calcium:Ca"
            )
        ),
        start=1,
    )
} | {
    "iron": ("Fe", 26),
    "copper": ("Cu", 29),
    "silver": ("Ag", 47),
    "tin": ("Sn", 50),
    "gold": ("Au", 79),
    "mercury": ("Hg", 80),
    "lead": ("Pb", 82),
}

_PLANETS = ["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"]
_ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]

_GROUPS = {
    "mammal": "whale bat dolphin horse elephant mouse seal bear wolf kangaroo",
    "bird": "eagle penguin owl sparrow duck ostrich parrot crow swan stork",
    "reptile": "snake lizard turtle crocodile gecko iguana",
    "fish": "shark salmon trout tuna eel carp herring",
    "amphibian": "frog toad newt salamander",
    "insect": "ant bee beetle butterfly fly moth wasp cricket",
}
_GROUP_OF = {animal: group for group, animals in _GROUPS.items() for animal in animals.split()}

_UNITS = {
    "force": "newton",
    "energy": "joule",
    "power": "watt",
    "pressure": "pascal",
    "electric current": "ampere",
    "voltage": "volt",
    "electrical resistance": "ohm",
    "frequency": "hertz",
    "temperature": "kelvin",
    "mass": "kilogram",
    "length": "metre",
    "time": "second",
    "electric charge": "coulomb",
    "luminous intensity": "candela",
    "amount of substance": "mole",
}
_ORGANS = {
    "pumps the blood": "the heart",
    "cleans the blood": "the kidneys",
    "takes in oxygen": "the lungs",
    "digests food with acid": "the stomach",
    "controls the body": "the brain",
    "makes bile": "the liver",
    "sees light": "the eye",
    "hears sound": "the ear",
    "makes insulin": "the pancreas",
    "covers the body": "the skin",
    "holds urine": "the bladder",
    "carries food to the stomach": "the gullet",
}
_CHANGES = {
    "melting": ("a solid", "a liquid"),
    "freezing": ("a liquid", "a solid"),
    "evaporation": ("a liquid", "a gas"),
    "condensation": ("a gas", "a liquid"),
    "sublimation": ("a solid", "a gas"),
    "deposition": ("a gas", "a solid"),
}
_STATES = {
    "ice": "solid",
    "water": "liquid",
    "steam": "gas",
    "iron": "solid",
    "oxygen": "gas",
    "mercury": "liquid",
    "helium": "gas",
    "gold": "solid",
    "nitrogen": "gas",
    "milk": "liquid",
    "salt": "solid",
    "hydrogen": "gas",
    "glass": "solid",
    "oil": "liquid",
    "neon": "gas",
    "copper": "solid",
    "alcohol": "liquid",
    "carbon dioxide": "gas",
}
_FORMULAS = {
    "water": "H2O",
    "carbon dioxide": "CO2",
    "table salt": "NaCl",
    "methane": "CH4",
    "ammonia": "NH3",
    "ozone": "O3",
    "rust": "Fe2O3",
    "quartz": "SiO2",
    "carbon monoxide": "CO",
    "sulfuric acid": "H2SO4",
    "hydrochloric acid": "HCl",
    "lime": "CaO",
}
_SCIENTISTS = {
    "gravity": "Newton",
    "relativity": "Einstein",
    "evolution": "Darwin",
    "radioactivity": "Curie",
    "heredity": "Mendel",
    "the vaccine": "Jenner",
    "the periodic table": "Mendeleev",
    "electromagnetism": "Maxwell",
    "penicillin": "Fleming",
    "the laws of planets": "Kepler",
}
_LEGS = {
    "an insect": 6,
    "a spider": 8,
    "a dog": 4,
    "a bird": 2,
    "a snake": 0,
    "a crab": 10,
    "a horse": 4,
    "a beetle": 6,
}

_OPENINGS = (
    *([""] * 10),
    "Question: ",
    "Please tell me: ",
    "Science: ",
    "Quick question: ",
    "I wonder: ",
    "Quiz: ",
)
_CLOSINGS = (*([""] * 6), " Thanks!", " Keep it short.", " Please.")


def exercise(rng: Random) -> Exercise:
    """One exercise of class "science"; its answer is a word, a number or a short sentence."""
    prompt, answer = rng.choices(_FORMS, _WEIGHTS)[0](rng)
    return Exercise("science", rng.choice(_OPENINGS) + prompt + rng.choice(_CLOSINGS), answer)


def _element(rng: Random) -> tuple[str, str]:
    name = rng.choice(sorted(_ELEMENTS))
    symbol, number = _ELEMENTS[name]
    form = rng.randrange(4)
    if form == 0:
        asks: tuple[str, ...] = (
            "What is the symbol of {}?",
            "What is the chemical symbol for {}?",
            "Which symbol stands for {}?",
            "Give the symbol of {}.",
        )
        return rng.choice(asks).format(name), f"The symbol of {name} is {symbol}."
    if form == 1:
        asks = (
            "Which element has the symbol {}?",
            "What element is {}?",
            "Name the element {}.",
            "What does the symbol {} stand for?",
        )
        return rng.choice(asks).format(symbol), f"{symbol} is {name}."
    if form == 2:
        asks = ("What is the atomic number of {}?", "How many protons does {} have?", "Which atomic number has {}?")
        return rng.choice(asks).format(name), f"The atomic number of {name} is {number}."
    if form == 3:
        asks = ("Which element has atomic number {}?", "Which element has {} protons?", "Name element number {}.")
        return rng.choice(asks).format(number), f"Element {number} is {name}."
    asks = ("Write the symbol and number of {}.", "Symbol and atomic number of {}?")
    return rng.choice(asks).format(name), f"{symbol}, {number}"


def _planet(rng: Random) -> tuple[str, str]:
    i = rng.randrange(8)
    form = rng.randrange(4)
    if form == 0:
        asks: tuple[str, ...] = (
            "Which planet is the {} from the Sun?",
            "Name the {} planet from the Sun.",
            "What is the {} planet?",
        )
        return rng.choice(asks).format(_ORDINALS[i]), f"{_PLANETS[i]}."
    if form == 1:
        asks = (
            "Which place from the Sun has {}?",
            "What number from the Sun is {}?",
            "Where does {} come in the order of planets?",
        )
        return rng.choice(asks).format(_PLANETS[i]), f"{_PLANETS[i]} is the {_ORDINALS[i]} planet."
    i = min(i, 6)
    if form == 2:
        return rng.choice(("Which planet comes after {}?", "What planet is next after {}?")).format(
            _PLANETS[i]
        ), f"{_PLANETS[i + 1]}."
    return rng.choice(("Which planet comes before {}?", "What planet is just before {}?")).format(
        _PLANETS[i + 1]
    ), f"{_PLANETS[i]}."


def _animal(rng: Random) -> tuple[str, str]:
    animal = rng.choice(sorted(_GROUP_OF))
    group = _GROUP_OF[animal]
    an, a_group = _article(animal), _article(group)
    if rng.random() < 0.6:
        asks: tuple[str, ...] = (
            "What kind of animal is {}?",
            "Which group of animals does {} belong to?",
            "What sort of animal is {}?",
        )
        return rng.choice(asks).format(an), f"{an.capitalize()} is {a_group}."
    asked = rng.choice([*sorted(_GROUPS), group])
    asks = ("Is {} {}?", "Would you call {} {}?")
    return rng.choice(asks).format(an, _article(asked)), "Yes." if asked == group else f"No, {an} is {a_group}."


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _unit(rng: Random) -> tuple[str, str]:
    quantity = rng.choice(sorted(_UNITS))
    unit = _UNITS[quantity]
    if rng.random() < 0.5:
        asks: tuple[str, ...] = (
            "What is the unit of {}?",
            "Which SI unit measures {}?",
            "In which unit is {} measured?",
        )
        return rng.choice(asks).format(quantity), f"The {unit}."
    asks = ("What does the {} measure?", "The {} is the unit of what?", "What is measured in the unit {}?")
    return rng.choice(asks).format(unit), f"It measures {quantity}."


def _organ(rng: Random) -> tuple[str, str]:
    task = rng.choice(sorted(_ORGANS))
    organ = _ORGANS[task]
    if rng.random() < 0.6:
        asks: tuple[str, ...] = ("What {} in the human body?", "Which part of the body {}?", "Name the organ that {}.")
        return rng.choice(asks).format(task), f"{organ.capitalize()}."
    verb = "do" if organ.endswith("s") and organ != "the pancreas" else "does"
    return f"What {verb} {organ} do?", f"{organ.capitalize()} {'help: it ' if verb == 'do' else ''}{task}."


def _change(rng: Random) -> tuple[str, str]:
    name = rng.choice(sorted(_CHANGES))
    before, after = _CHANGES[name]
    if rng.random() < 0.5:
        asks: tuple[str, ...] = (
            "What is it called when {} becomes {}?",
            "Name the change from {} to {}.",
            "{} turns into {}: what is that called?",
        )
        return rng.choice(asks).format(before, after), f"{name.capitalize()}."
    asks = ("What happens in {}?", "What does {} mean?", "Explain {}.")
    return rng.choice(asks).format(name), f"{before.capitalize()} becomes {after}."


def _state(rng: Random) -> tuple[str, str]:
    substance = rng.choice(sorted(_STATES))
    asks: tuple[str, ...] = (
        "Is {} a solid, a liquid or a gas?",
        "In which state is {} at room temperature?",
        "What state of matter is {}?",
    )
    state = _STATES[substance]
    return rng.choice(asks).format(substance), f"{substance.capitalize()} is a {state}."


def _formula(rng: Random) -> tuple[str, str]:
    substance = rng.choice(sorted(_FORMULAS))
    if rng.random() < 0.5:
        ask = rng.choice(("What is the formula of {}?", "Write the formula of {}."))
        return ask.format(substance), _FORMULAS[substance]
    asks: tuple[str, ...] = ("Which substance is {}?", "What has the formula {}?", "What is {}?")
    return rng.choice(asks).format(_FORMULAS[substance]), f"{substance.capitalize()}."


def _scientist(rng: Random) -> tuple[str, str]:
    topic = rng.choice(sorted(_SCIENTISTS))
    name = _SCIENTISTS[topic]
    if rng.random() < 0.5:
        ask = rng.choice(("Who is known for {}?", "Which scientist do we thank for {}?", "Who worked out {}?"))
        return ask.format(topic), f"{name}."
    return rng.choice(("What is {} known for?", "What did {} work on?")).format(name), f"{name} is known for {topic}."


def _legs(rng: Random) -> tuple[str, str]:
    animal = rng.choice(sorted(_LEGS))
    return rng.choice(("How many legs has {}?", "How many legs does {} have?")).format(animal), f"{_LEGS[animal]} legs."


_FORMS = (_element, _planet, _animal, _unit, _organ, _change, _state, _formula, _scientist, _legs)
_WEIGHTS = (8, 3, 4, 3, 2, 1, 2, 2, 2, 1)
