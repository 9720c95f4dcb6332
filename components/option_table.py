"""The single options of a recipe as the page asks for them: groups, labels, and what each does in the field's terms.

What the page asks for elsewhere is not here: drop count, class weights, and what is said by hand about experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["choice", "number", "switch", "pair", "ticks", "numbers", "text"]
"""How assets/options.js asks: one of some choices; a number; yes or no; two numbers; some of the classes; a number for
each class; a line of text."""

SECOND = "second"
"""The option that is no field of a recipe: the analysis that floors go by; empty for the one that is open."""


@dataclass(frozen=True)
class Option:
    """One field of a recipe."""

    field: str
    label: str
    info: str
    kind: Kind
    choices: tuple[tuple[str, str], ...] = ()
    """(label, value), the empty value for None."""
    step: float = 1
    """Of a number; whole ones have whole steps."""
    least: float = 0
    unset: str = ""
    """Of a number that may be left out: what an empty field says."""


_AGGREGATES = (
    ("Sum", "sum"),
    ("Mean", "mean"),
    ("Maximum: strong in any one class is enough", "max"),
    ("Geometric mean: weak in one class costs much", "geomean"),
    ("L4 norm: between sum and maximum", "lp4"),
    ("Soft maximum (log-sum-exp, t = 4)", "softmax_t4"),
    ("Second highest: strong in two classes", "second"),
    ("Mean of the three highest", "top3mean"),
)

GROUPS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    (
        "How experts are scored",
        (
            Option(
                "criterion",
                "Criterion",
                "What is measured of an expert in each class; f is its output for a token, g its gate weight.",
                "choice",
                (
                    ("Weighted norm: √Σ‖g·f‖² of each question, added up", "weighted_norm"),
                    ("Norm without the gate: √Σ‖f‖² of each question", "norm"),
                    ("Contribution: Σ‖g·f‖", "contribution"),
                    ("Frequency: routed tokens N", "frequency"),
                    ("Gate weight: Σg", "gate"),
                    ("REAP: Σ‖g·f‖ / N", "reap"),
                    ("EAN, activation norm: Σ‖f‖", "ean"),
                    ("EAN per routed token: Σ‖f‖ / N", "ean_mean"),
                    ("Coverage: questions that vouch for it", "coverage"),
                ),
            ),
            Option(
                "protect_top_per_question",
                "Experts a question vouches for",
                "Coverage counts the questions in which an expert is among so many highest norms of its layer.",
                "number",
                least=1,
            ),
            Option(
                "add_tokens",
                "Add the routed tokens",
                "With a factor of 2 this is the published score, 2·wnorm + tc.",
                "switch",
            ),
            Option(
                "alpha",
                "Factor of the criterion",
                "The criterion is multiplied with this before tokens are added.",
                "number",
                step=0.1,
            ),
            Option(
                "outliers",
                "Outliers count as",
                "Numbers of the analysis that are not finite, or too large to be true.",
                "choice",
                (
                    ("The median of their layer", "median"),
                    ("Zero", "zero"),
                    ("A reason to drop the expert first", "drop"),
                    ("What they are: NaN and huge values rank highest", "keep"),
                ),
            ),
            Option(
                "outlier_threshold",
                "Largest credible value",
                "What is larger in a question is an outlier.",
                "number",
                step=0.1,
                unset="a million medians",
            ),
        ),
    ),
    (
        "How classes are put together",
        (
            Option("classes", "Classes that take part", "The others have no say in the scores.", "ticks"),
            Option(
                "pool_classes",
                "All classes count as one",
                "Their sums are added before anything else; REAP and EAN per token are means over all tokens then.",
                "switch",
            ),
            Option(
                "normalise",
                "Make classes comparable",
                "Within each class and layer, before classes are combined.",
                "choice",
                (
                    ("Not: a class with more tokens counts more", "none"),
                    ("Divide by the mean of the layer", "mean"),
                    ("Rank in the layer, 0 to 1", "rank"),
                    ("z-score: standard deviations above the mean", "zscore"),
                ),
            ),
            Option("aggregate", "Combine classes by", "The weighted classes become one score.", "choice", _AGGREGATES),
            Option(
                "breadth_bonus",
                "Breadth bonus",
                "So much of the mean over all classes is added to the score: experts of many classes gain.",
                "number",
                step=0.05,
            ),
        ),
    ),
    (
        "What is protected",
        (
            Option("protect_top", "Protect the highest scores", "So many of each layer are not dropped.", "number"),
            Option(
                "protect_aggregate",
                "They are the highest by",
                "Protection may combine the classes in another way than the score does.",
                "choice",
                (("The score itself", ""), *_AGGREGATES),
            ),
            Option(
                "protect_class_weights",
                "Class weights of protection",
                "How much each class counts for who is protected.",
                "numbers",
                step=0.25,
            ),
            Option(
                "protect_top_per_class",
                "Protect the highest of every class",
                "So many experts with the highest value in a class are not dropped, for each class.",
                "number",
            ),
            Option(
                SECOND,
                "Floors and minimums go by",
                "The classes of this or of another analysis of the model: a generic one keeps general skills.",
                "choice",
            ),
            Option(
                "floor",
                "Protect by a floor",
                "So many experts of each layer with the highest value in any class of that analysis are not dropped.",
                "number",
            ),
            Option(
                "floor_layers_from",
                "Floors per layer",
                "A layer that matters more may protect more.",
                "choice",
                (("As written here", "recipe"), ("By the importance of each layer", "importance")),
            ),
            Option(
                "layer_floors",
                "Floors of single layers",
                "In place of the floor, like 0..4: 24; 5,7: 20. The content of a published file of floors works too.",
                "text",
            ),
            Option(
                "floor_clamp",
                "Range of floors per layer",
                "Floors that differ are stretched linearly from the lowest to the highest of these.",
                "pair",
            ),
            Option(
                "class_minimums",
                "Kept at least, per class",
                "So many of the kept experts of each layer have their highest value in the class: the best that were "
                "dropped come back for the weakest of others.",
                "numbers",
            ),
        ),
    ),
    (
        "Where it applies",
        (
            Option(
                "scope",
                "Layers",
                "Model-wide, values are averaged over layers, and what is done by hand is done in all of them.",
                "choice",
                (("Each layer drops its own experts", "layer"), ("All layers drop the same experts", "model")),
            ),
            Option(
                "arithmetic",
                "Arithmetic",
                "They differ where a class weighs 0 or numbers are not finite; the published one makes published maps "
                "again.",
                "choice",
                (("Espalier's", "espalier"), ("The published generator's, to the letter", "published")),
            ),
        ),
    ),
)

OPTIONS: dict[str, Option] = {option.field: option for _, options in GROUPS for option in options}
