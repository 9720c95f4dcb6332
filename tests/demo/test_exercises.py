"""The exercises: deterministic, disjoint, right by their own check and wrong where they should be."""

from __future__ import annotations

import random
from itertools import islice, pairwise

import pytest

from studio.demo.exercises import CHECKABLE, CLASSES, Exercise, check_answer, distinct, generate, is_held_out
from studio.demo.exercises.creative import check_form

COUNT = 120


def some(klass: str, held_out: bool = False, seed: int = 3) -> list[Exercise]:
    return list(islice(distinct(klass, seed, held_out), COUNT))


@pytest.mark.parametrize("klass", CLASSES)
def test_the_same_seed_gives_the_same_exercises_and_another_seed_gives_others(klass: str) -> None:
    assert some(klass) == some(klass)
    assert some(klass) != some(klass, seed=4)


@pytest.mark.parametrize("klass", CLASSES)
def test_training_and_held_out_prompts_are_disjoint(klass: str) -> None:
    train = {exercise.prompt for seed in range(5) for exercise in some(klass, seed=seed)}
    held = {exercise.prompt for exercise in some(klass, held_out=True)}
    assert len(held) == COUNT
    assert not train & held
    assert all(is_held_out(klass, prompt) for prompt in held)
    assert not any(is_held_out(klass, prompt) for prompt in train)


def test_about_one_prompt_in_sixteen_is_held_out() -> None:
    share = sum(is_held_out("math", f"What is {n}?") for n in range(16_000)) / 16_000
    assert 0.055 < share < 0.07


@pytest.mark.parametrize("klass", [*CLASSES, "chat"])
def test_every_generated_answer_passes_its_own_check(klass: str) -> None:
    rng = random.Random(7)
    for _ in range(300):
        exercise = generate(klass, rng)
        assert exercise.check(exercise.answer), exercise
        assert exercise.check(f" {exercise.answer.rstrip('.')}\n"), exercise


@pytest.mark.parametrize("klass", CHECKABLE)
def test_the_answer_of_another_question_an_empty_one_and_a_longer_one_are_wrong(klass: str) -> None:
    exercises = some(klass)
    for exercise, other in pairwise(exercises):
        assert exercise.check(other.answer) == (exercise.answer == other.answer)
        assert not exercise.check("")
        assert not exercise.check(exercise.answer + "0")
        assert not exercise.check(exercise.answer + "\n" + exercise.answer)


@pytest.mark.parametrize("klass", CHECKABLE)
def test_one_prompt_has_one_answer(klass: str) -> None:
    rng = random.Random(11)
    known: dict[str, str] = {}
    for _ in range(3000):
        exercise = generate(klass, rng)
        assert known.setdefault(exercise.prompt, exercise.answer) == exercise.answer


@pytest.mark.parametrize(
    ("prompt", "right", "wrong"),
    [
        (
            "Write a couplet about the moon.",
            ["I saw the moon in the light,\nand stars came out to say good night."],
            [
                "I saw the sun in the light,\nand stars came out to say good night.",
                "I saw the moon in the light,\nand it is wild and free.",
                "I saw the moon in the light,\nand the light.",
                "I saw the moon in the light.",
            ],
        ),
        (
            "Please write a four-line poem about the fox.",
            ["The fox is a lovely sight,\nand it felt so right.\nThe fox stays out in the cold,\na wonder to behold."],
            ["The fox is a lovely sight,\nand it felt so right."],
        ),
        (
            "Suggest three names for a cat that start with M.",
            ["Milo, Max, Misty", "Mo, Mimi, Mux."],
            ["Milo, Max", "Milo, Max, Max", "Milo, Max, Ben", "milo, max, misty"],
        ),
        (
            "Describe the bear with two words that begin like it.",
            ["The brave, bold bear.", "The big, bad bear"],
            ["The brave bear.", "The brave, old bear.", "The brave, brave bear.", "brave, bold"],
        ),
        ("Tell me a story.", [], ["Once upon a time."]),
    ],
)
def test_creative_form_is_read_from_the_prompt(prompt: str, right: list[str], wrong: list[str]) -> None:
    assert all(check_form(prompt, text) for text in right)
    assert not any(check_form(prompt, text) for text in wrong)


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(KeyError):
        generate("cookery", random.Random(0))


def test_a_sum_may_lack_its_full_stop_but_not_its_sum() -> None:
    assert check_answer("math", "What is 2 + 3?", "2 + 3 = 5", "2 + 3 = 5.")
    assert not check_answer("math", "What is 2 + 3?", "2 + 3 = 5", "5")
