"""Rhymes, four-line poems, lists of names and alliteration; what is checked is the form, read back from the prompt."""

from __future__ import annotations

import re
from random import Random

from studio.demo.exercises.base import Exercise, in_words, word_list

# Family of rhymes → lines with the topic, and lines without it. A line's last word is its rhyme.
_RHYMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ight": (
        (
            "I saw the {} in the light",
            "The {} is a lovely sight",
            "I dream of the {} at night",
            "The {} shines so very bright",
        ),
        (
            "and all the world was soft and bright",
            "and stars came out to say good night",
            "it filled my heart with pure delight",
            "and it felt so right",
        ),
    ),
    "ay": (
        (
            "I met the {} on my way",
            "The {} came along to play",
            "I think of the {} every day",
            "The {} likes a month like May",
        ),
        (
            "and asked it if it wants to stay",
            "we sang and danced the hours away",
            "it made a brighter day",
            "and no one had a word to say",
        ),
    ),
    "ee": (
        (
            "The {} is what I want to see",
            "Beside the {} there stands a tree",
            "The {} belongs to you and me",
            "I found the {} down by the sea",
        ),
        (
            "and it is wild and free",
            "as happy as can be",
            "come and have a cup of tea",
            "and every heart can be the key",
        ),
    ),
    "own": (
        (
            "The {} is the talk of town",
            "I drew the {} in red and brown",
            "The {} would like to wear a crown",
            "I saw the {} while lying down",
        ),
        ("and it never wears a frown", "as evening sun goes down", "so put away your frown", "in a velvet gown"),
    ),
    "ing": (
        (
            "I heard about the {} in spring",
            "The {} is a wondrous thing",
            "To you the {} is what I bring",
            "The {} can make the whole world sing",
        ),
        (
            "so let the bells all ring",
            "it is as proud as any king",
            "like a bird upon the wing",
            "and hear the children sing",
        ),
    ),
    "ound": (
        (
            "I lost the {} but then it was found",
            "The {} came without a sound",
            "I danced with the {} around and around",
            "Look at the {} upon the ground",
        ),
        (
            "and joy was all around",
            "so soft and safe and sound",
            "there is magic to be found",
            "and the earth is turning round",
        ),
    ),
    "old": (
        (
            "The {} is worth its weight in gold",
            "I love the {} though it is old",
            "The {} stays out in the cold",
            "There is a tale of the {} I was told",
        ),
        ("a wonder to behold", "a story to be told", "so gentle and so bold", "and it never will be sold"),
    ),
    "air": (
        (
            "I saw the {} in the morning air",
            "The {} is beyond compare",
            "The {} sits on a wooden chair",
            "Now look at the {} over there",
        ),
        (
            "with ribbons in its hair",
            "it vanished, I know not where",
            "there is enough for us to share",
            "and nobody has a care",
        ),
    ),
}
_FAMILY_OF_WORD = {
    line.split()[-1]: family for family, (first, second) in _RHYMES.items() for line in (*first, *second)
}
_TOPICS = word_list(
    "moon sun sea river forest garden cat dog fox owl bear rose star rain snow wind fire mountain lake bridge "
    "city village train boat lantern clock piano violin book letter summer winter kite cloud apple honey whale "
    "horse robin meadow candle castle island market"
)
_NAMES_OF = {
    letter: names.split()
    for letter, names in {
        "A": "Ada Alba Amber Apollo Archie Aster",
        "B": "Bella Benny Biscuit Blue Bonnie Buddy",
        "C": "Cleo Coco Cookie Cosmo Clover Chip",
        "D": "Daisy Dash Dolly Dusty Duke Dot",
        "F": "Felix Fern Flash Fluffy Frost Finn",
        "G": "Ginger Gus Goldie Gizmo Gem Glen",
        "H": "Hazel Honey Hugo Happy Henry Holly",
        "L": "Luna Lucky Lily Leo Lemon Lola",
        "M": "Milo Misty Max Mocha Maple Minnie",
        "N": "Nala Noodle Nova Ned Nutmeg Nell",
        "P": "Pepper Poppy Patch Pip Peach Pearl",
        "R": "Rex Ruby Rusty Rosie Rocky Robin",
        "S": "Sunny Smoky Sammy Sky Sasha Spot",
        "T": "Teddy Toby Tiger Tilly Tango Thor",
        "W": "Willow Winnie Waldo Wren Whisky Woody",
    }.items()
}
_PETS = ["cat", "dog", "horse", "rabbit", "parrot", "hamster", "goat", "duck", "pony", "turtle"]
_ADJECTIVES = {
    "b": "bold brave bright busy beautiful",
    "c": "calm clever cosy curious cheerful",
    "f": "fine fair funny fresh friendly",
    "g": "gentle grand great green golden",
    "h": "happy hidden high honest hopeful",
    "l": "little lovely light lucky lively",
    "m": "merry mild magic mighty modest",
    "p": "pretty plain proud pure perfect",
    "r": "rare rich ready round royal",
    "s": "soft sweet strong silent shiny",
    "v": "vast vivid valued velvet vital",
    "w": "warm wild wise white wonderful",
}
_COUNTS = {"two": 2, "three": 3, "four": 4}
_ALLITERATIVE_TOPICS = [topic for topic in _TOPICS if topic[0] in _ADJECTIVES]


def exercise(rng: Random) -> Exercise:
    """One exercise of class "creative"; many answers are right, see `check_form`."""
    prompt, answer = rng.choices((_couplet, _poem, _names, _alliteration), (3, 2, 3, 2))[0](rng)
    return Exercise("creative", prompt, answer)


def _two_lines(rng: Random, family: str, topic: str) -> list[str]:
    first, second = _RHYMES[family]
    line = rng.choice(first)
    other = rng.choice([candidate for candidate in second if candidate.split()[-1] != line.split()[-1]])
    return [line.format(topic) + ",", other + "."]


def _ask(rng: Random, what: str, topic: str) -> str:
    asks = (
        "Write {} about the {}.",
        "Please write {} about the {}.",
        "Can you write {} about the {}?",
        "I would like {} about the {}.",
        "Make up {} about the {}.",
        "Give me {} about the {}.",
    )
    return rng.choice(asks).format(what, topic)


def _couplet(rng: Random) -> tuple[str, str]:
    topic = rng.choice(_TOPICS)
    what = rng.choice(("a couplet", "a rhyming couplet", "two lines that rhyme"))
    return _ask(rng, what, topic), "\n".join(_two_lines(rng, rng.choice(sorted(_RHYMES)), topic))


def _poem(rng: Random) -> tuple[str, str]:
    topic = rng.choice(_TOPICS)
    families = rng.sample(sorted(_RHYMES), 2)
    what = rng.choice(("a poem", "a short poem", "a four-line poem"))
    return _ask(rng, what, topic), "\n".join(line for family in families for line in _two_lines(rng, family, topic))


def _names(rng: Random) -> tuple[str, str]:
    letter, count, pet = rng.choice(sorted(_NAMES_OF)), rng.choice(sorted(_COUNTS)), rng.choice(_PETS)
    asks = (
        "Suggest {} names for a {} that start with {}.",
        "I need {} names for a {}, all starting with {}.",
        "Find {} names for my {} with the letter {}.",
    )
    return rng.choice(asks).format(count, pet, letter), in_words(rng.sample(_NAMES_OF[letter], _COUNTS[count]))


def _alliteration(rng: Random) -> tuple[str, str]:
    topic, count = rng.choice(_ALLITERATIVE_TOPICS), rng.choice(("two", "three"))
    asks = (
        "Describe the {} with {} words that begin like it.",
        "Describe the {} in {} words with the same first letter.",
        "An alliteration for the {}, {} words please.",
    )
    words = rng.sample(_ADJECTIVES[topic[0]].split(), _COUNTS[count])
    return rng.choice(asks).format(topic, count), f"The {', '.join(words)} {topic}."


def check_form(prompt: str, text: str) -> bool:
    """Whether `text` has the form that `prompt` asks for.

    Couplet and poem: 2 or 4 lines, each pair ends in two different words of one rhyme family, the topic occurs.
    Names: as many different names as asked for, each with the letter. Alliteration: as many different words as asked
    for, each with the topic's first letter, then the topic.
    """
    if found := re.search(r"(couplet|two lines|poem) .*?about the (\w+)|two lines that rhyme about the (\w+)", prompt):
        topic = re.findall(r"about the (\w+)", prompt)[-1]
        return _rhymes(text, 4 if found.group(1) == "poem" else 2, topic)
    if found := re.search(r"(two|three|four) names .* ([A-Z])\.$", prompt):
        names = re.split(r",\s*", text.strip().removesuffix("."))
        wanted = _COUNTS[found.group(1)]
        return len(names) == wanted == len(set(names)) and all(
            re.fullmatch(found.group(2) + r"[a-z]+", name) for name in names
        )
    if found := re.search(r"the (\w+)[ ,].*?(two|three) words", prompt):
        topic, wanted = found.group(1), _COUNTS[found.group(2)]
        answer = re.fullmatch(rf"The ((?:[a-z]+, )*[a-z]+) {topic}\.?", text.strip())
        words = answer.group(1).split(", ") if answer else []
        return len(words) == wanted == len(set(words)) and all(word.startswith(topic[0]) for word in words)
    return False


def _rhymes(text: str, count: int, topic: str) -> bool:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if len(lines) != count or topic not in re.findall(r"\w+", text.lower()):
        return False
    ends = [re.sub(r"\W", "", line.split()[-1]) for line in lines]
    return all(
        first != second
        and _FAMILY_OF_WORD.get(first) is not None
        and _FAMILY_OF_WORD.get(first) == _FAMILY_OF_WORD.get(second)
        for first, second in zip(ends[::2], ends[1::2], strict=True)
    )
