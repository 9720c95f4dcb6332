"""The arguments of the published map generator, read as a recipe.

They come as the list that its command line was given, or by name in the `args` of the summary that it wrote. What only
says where files lie has no place in a recipe: analyses are given when a map is made, and so is a file of floors.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar, get_args

from studio.errors import FormatError, InputError
from studio.recipes.json_object import parse_json, shown
from studio.recipes.recipe import POSITION, Aggregate, Outliers, Recipe

Number = TypeVar("Number", int, float)

DEFAULT_PROTECT_TOP = 16
DEFAULT_ALPHA = 2.0
DEFAULT_WEIGHTS: Mapping[str, float] = {
    "targeted_humaneva[l]": 3.0,
    "targeted_humanevalplu[s]": 3.0,
    "targeted_lcb_medium_5[5]": 3.0,
}
"""Without weights, three classes count three times, where the analysis has them: only patterns may be of none."""

_FILES = ("data", "output", "summary_output", "baseline_drop_map", "v4_floor_data")
_LONGEST_OPTION = 30
"""The generator's own are shorter."""
_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
"""What argparse takes for a negative number, and not for an option."""


def recipe_of_arguments(source: str | bytes, name: str = "arguments") -> Recipe:
    """The recipe of a JSON list of arguments (or an object with it as `args`), or of a generator's summary.

    Raises `FormatError` for anything else, an argument that the generator does not have, and a value it would refuse.
    """
    arguments, used = _arguments(source, name)
    given = _by_name(arguments, name) if isinstance(arguments, list) else arguments
    try:
        return _recipe(_Arguments(given, name), used)
    except FormatError:
        raise
    except InputError as error:
        raise FormatError(name, "", error.what.removesuffix("."), error.remedy) from error


def _arguments(source: str | bytes, name: str) -> tuple[list[str] | Mapping[str, Any], Sequence[str] | None]:
    """The arguments, and the names of the classes that were used where the file tells."""
    content = parse_json(source, name)
    used = content.get("classes_used") if isinstance(content, Mapping) else None
    arguments = content.get("args") if isinstance(content, Mapping) else content
    if used is not None and not _are_texts(used):
        raise FormatError(name, "classes_used", f"{shown(used)} is not a list of the names of classes")
    if _are_texts(arguments):
        return arguments, used
    if isinstance(arguments, Mapping):
        return arguments, used
    raise FormatError(
        name,
        "args" if isinstance(content, Mapping) else "",
        "it is neither a list of the generator's arguments nor its summary",
        'Give a JSON list of strings, ["--target", "98", …], or the *.summary.json beside a published map.',
    )


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _by_name(arguments: list[str], name: str) -> dict[str, Any]:
    """`--name value value` and `--name=value` as name → values; the last of a name counts."""
    found: dict[str, Any] = {}
    option = ""
    for argument in arguments:
        if argument.startswith("--"):
            long, equals, value = argument.removeprefix("--").partition("=")
            option = long.replace("-", "_")
            found[option] = [value] if equals else []
        elif not option or (argument.startswith("-") and not _NUMBER.fullmatch(argument)):
            raise FormatError(name, "", f"{shown(argument)} belongs to no option of the generator")
        else:
            found[option].append(argument)
    return found


class _Arguments:
    """Arguments by name, each read once; what is left over at the end is unknown."""

    def __init__(self, given: Mapping[str, Any], name: str) -> None:
        self._given = {key: value for key, value in given.items() if value is not None}
        self._name = name
        self.given = frozenset(self._given)

    def error(self, key: str, problem: str) -> FormatError:
        return FormatError(self._name, f"--{key[:_LONGEST_OPTION].replace('_', '-')}", problem)

    def values(self, key: str) -> list[str] | None:
        """All values of `key` as text, at least one; None when it is not given."""
        value = self._given.pop(key, None)
        if value is None:
            return None
        values = [str(one) for one in value] if isinstance(value, list) else [str(value)]
        if not values:
            raise self.error(key, "it has no value")
        return values

    def one(self, key: str) -> str | None:
        values = self.values(key)
        if values is not None and len(values) > 1:
            raise self.error(key, f"it has {len(values)} values, and takes one")
        return None if values is None else values[0]

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """One of `choices`; the first when it is not given."""
        value = self.one(key) or choices[0]
        if value not in choices:
            raise self.error(key, f"it is {shown(value)}, and has to be one of {', '.join(choices)}")
        return value

    def number(self, key: str, default: float) -> float:
        return self.parsed(key, float, self.one(key), default)

    def count(self, key: str, default: int) -> int:
        return self.parsed(key, int, self.one(key), default)

    def parsed(self, key: str, read: Callable[[str], Number], text: str | None, default: Number) -> Number:
        try:
            return default if text is None else read(text)
        except ValueError:
            raise self.error(key, f"{shown(text)} is not {'a whole number' if read is int else 'a number'}") from None

    def require_nothing_left(self) -> None:
        if left := sorted(self._given):
            raise self.error(left[0], "the generator has no such option")


def _recipe(arguments: _Arguments, used: Sequence[str] | None) -> Recipe:
    for key in _FILES:
        arguments.values(key)
    if "target" not in arguments.given:
        raise arguments.error("target", "it is missing, and says how many experts each layer keeps")
    classes = arguments.values("classes")
    names = classes or used
    weights = _weights(arguments, "class_weights", names)
    protect_weights = _weights(arguments, "protect_class_weights", names)
    protect_by = arguments.choice("protect_strategy", ("same", *get_args(Aggregate)))
    fields: dict[str, Any] = {
        "arithmetic": "published",
        "criterion": "weighted_norm",
        "alpha": arguments.number("alpha", DEFAULT_ALPHA),
        "add_tokens": arguments.choice("score_mode", ("legacy", "mean")) == "legacy",
        **_outliers(arguments),
        "classes": classes,
        "normalise": arguments.choice("normalize", ("rank", "mean")),
        "class_weights": dict(DEFAULT_WEIGHTS) if weights is None else weights,
        "aggregate": arguments.choice("strategy", ("max", *get_args(Aggregate))),
        "breadth_bonus": max(arguments.number("breadth_bonus", 0.0), 0.0),
        "protect_top": arguments.count("protect_top", DEFAULT_PROTECT_TOP),
        "protect_aggregate": None if protect_by == "same" else protect_by,
        "protect_class_weights": (protect_weights or {}) if protect_by != "same" else {},
        "protect_top_per_class": arguments.count("class_protect_floor", 0),
        "floor": arguments.count("v4_floor_top", 0),
        "floor_layers_from": "recipe" if arguments.one("v4_floor_map") is None else "file",
        "floor_clamp": _clamp(arguments),
        "class_minimums": _minimums(arguments),
        "keep": arguments.count("target", 0),
    }
    arguments.require_nothing_left()
    return Recipe(**fields)


def _weights(arguments: _Arguments, key: str, names: Sequence[str] | None) -> dict[str, float] | None:
    """Weights by the names of the classes, or by position where no names are known; None when they are not given."""
    values = arguments.values(key)
    if values is None:
        return None
    weights = [arguments.parsed(key, float, value, 1.0) for value in values]
    if names is None:
        return {f"{POSITION}{place}": weight for place, weight in enumerate(weights, start=1)}
    if len(names) != len(weights):
        raise arguments.error(key, f"there are {len(weights)} weights for {len(names)} classes")
    return dict(zip(names, weights, strict=True))


def _outliers(arguments: _Arguments) -> dict[str, Any]:
    """Without a threshold, only what is not finite is an outlier to the generator."""
    mode = arguments.choice("outlier_mode", ("keep", *get_args(Outliers)))
    threshold = arguments.number("outlier_wnorm_thresh", math.inf)
    if mode == "keep":
        return {"outliers": mode}
    return {"outliers": mode, "outlier_threshold": sys.float_info.max if threshold == math.inf else threshold}


def _clamp(arguments: _Arguments) -> tuple[int, int] | None:
    values = arguments.values("v4_floor_clamp")
    if values is None:
        return None
    if len(values) != 2:
        raise arguments.error("v4_floor_clamp", f"it has {len(values)} values, and takes the lowest and highest floor")
    lowest, highest = (arguments.parsed("v4_floor_clamp", int, value, 0) for value in values)
    return lowest, highest


def _minimums(arguments: _Arguments) -> list[tuple[str, int]]:
    """`class:count` each, in the order given; a class that comes twice has its last count, at its first place."""
    found: dict[str, int] = {}
    for text in arguments.values("protect_class_min") or []:
        klass, _, count = text.partition(":")
        found[klass.strip()] = arguments.parsed("protect_class_min", int, count, 0)
    return [(klass, count) for klass, count in found.items() if count > 0]
