"""The verbs for recipes: import, schema, link."""

from __future__ import annotations

from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.terminal import Json, Overwrite, progress_bar, read_bytes, require_apart, result
from studio.errors import InputError

if TYPE_CHECKING:
    from studio.recipes.recipe import Recipe


def import_(
    arguments: Annotated[
        Path,
        typer.Argument(
            help="Arguments of the published generator: a JSON list, or its *.summary.json.", metavar="ARGUMENTS"
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="The recipe to write (JSON).")],
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Turn the arguments that a published map was made with into a recipe."""
    from studio.recipes.generator import recipe_of_arguments
    from studio.staging import staged

    require_apart([out], [arguments])
    recipe = recipe_of_arguments(read_bytes(arguments, "file of arguments"), str(arguments))
    with staged(out, overwrite=overwrite) as partial:
        partial.write_text(recipe.to_json(), encoding="utf-8")
    needs = [
        *(["--floor-contributions"] if recipe.needs_second_analysis else []),
        *(["--layer-floor"] if recipe.floor_layers_from == "file" else []),
    ]
    fields = {
        "recipe_file": str(out),
        "recipe": loads(recipe.to_json()),
        "recipe_hash": recipe.content_hash,
        "needs": needs,
    }
    text = f"{out}: keeps {recipe.keep} experts in every layer."
    if needs:
        text += f"\nTo make a map with it, give {' and '.join(needs)} as well."
    result(json, fields, text)


def schema() -> None:
    """Print the JSON schema of recipe files."""
    from studio.recipes.recipe import Recipe

    print(dumps(Recipe.json_schema(), indent=2, ensure_ascii=False))


def link(
    recipe: Annotated[Path, typer.Argument(help="A recipe (JSON).", metavar="RECIPE")],
    *,
    contributions: Annotated[Path, typer.Option(help="The analysis that it is used on.")],
    floor_contributions: Annotated[Path | None, typer.Option(help="The second analysis, where it needs one.")] = None,
    layer_floor: Annotated[
        Path | None, typer.Option(help="Its floors per layer (JSON), where they are a file.")
    ] = None,
    json: Json = False,
) -> None:
    """Print a recipe and the hashes of its analyses as one line that gives the same map for ever."""
    from studio.contributions.importers import import_analysis
    from studio.recipes.decision import decide
    from studio.recipes.floors import with_layer_floors
    from studio.recipes.permalink import Permalink
    from studio.recipes.recipe import Recipe

    read = Recipe.from_json(read_bytes(recipe, "recipe"), name=str(recipe))
    if layer_floor is not None:
        read = with_layer_floors(read, read_bytes(layer_floor, "file of floors"), str(layer_floor))
    require_used(floor_contributions, read)
    with progress_bar() as progress:
        first = import_analysis(contributions, progress)
        second = None if floor_contributions is None else import_analysis(floor_contributions, progress)
    decide(first, read, second)  # a link that makes no map is refused here, and not where somebody opens it
    permalink = Permalink(read, first.content_hash, second.content_hash if second else None)
    fields: dict[str, Any] = {"permalink": permalink.to_text(), "recipe_hash": read.content_hash}
    result(json, fields, fields["permalink"])


def require_used(floor_contributions: Path | None, recipe: Recipe) -> None:
    """Raise `InputError` for a second analysis that would change nothing: whoever gives one expects that it does."""
    if floor_contributions is not None and not recipe.needs_second_analysis:
        raise InputError(
            f"The recipe has no floors or class_minimums that go by a second analysis, such as {floor_contributions}.",
            "Leave --floor-contributions out, or say floor_analysis: second in the recipe, and a floor.",
        )
