"""The verbs for recipes: import, schema, link, and those for recipes that have a name: list, show, save, delete."""

from __future__ import annotations

from json import dumps, loads
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.terminal import Json, Overwrite, progress_bar, read_bytes, require_apart, result
from studio.errors import InputError

if TYPE_CHECKING:
    from studio.recipes.recipe import Recipe
    from studio.shelf import Shelf

Name = Annotated[str, typer.Argument(help="The name of a recipe, as on the page.", metavar="NAME")]
_NAMES = "`recipe list` prints the names that there are."


def shelf() -> Shelf:
    """The named recipes of the workspace."""
    from studio.shelf import Shelf
    from studio.workspace import Workspace

    return Shelf(Workspace.open().recipes)


def read_recipe(named: Path) -> Recipe:
    """The recipe in the file `named`, or else of that name in the workspace; `InputError` where there is neither."""
    from studio.recipes.recipe import Recipe

    if named.exists() or named.name != str(named):
        return Recipe.from_json(read_bytes(named, "recipe"), name=str(named))
    kept = shelf()
    if named.name not in kept.names():
        raise InputError(
            f"The recipe {named.name} cannot be read: there is neither a file nor a named recipe of that name.", _NAMES
        )
    return kept.read(named.name)


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
    recipe: Annotated[Path, typer.Argument(help="A recipe (JSON), or the name of one.", metavar="RECIPE")],
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

    read = read_recipe(recipe)
    if layer_floor is not None:
        read = with_layer_floors(read, read_bytes(layer_floor, "file of floors"), str(layer_floor))
    require_used(floor_contributions, read)
    with progress_bar() as progress:
        first = import_analysis(contributions, progress)
        second = None if floor_contributions is None else import_analysis(floor_contributions, progress)
    decide(first, read, second)  # a link that makes no map is refused here, and not where somebody opens it
    permalink = Permalink(read, first.content_hash, second.content_hash if second else None, first.model)
    fields: dict[str, Any] = {"permalink": permalink.to_text(), "recipe_hash": read.content_hash}
    result(json, fields, fields["permalink"])


def _shelf_with(name: str) -> Shelf:
    kept = shelf()
    if name not in kept.names():
        raise InputError(f"There is no recipe {name!r}.", _NAMES)
    return kept


def list_(*, json: Json = False) -> None:
    """Print the names of the recipes that the workspace keeps."""
    names = shelf().names()
    result(json, {"recipes": names}, "\n".join(names) or "No recipe has a name yet. `recipe save` gives one.")


def show(name: Name, *, json: Json = False) -> None:
    """Print a named recipe, as a file would have it."""
    kept = _shelf_with(name)
    recipe = kept.read(name)
    fields = {"name": name, "recipe_hash": recipe.content_hash, "recipe": loads(recipe.to_json())}
    if recipe.needs_second_analysis:
        fields["floor_contributions"] = kept.second(name)
    result(json, fields, recipe.to_json().rstrip())


def save(
    name: Name,
    *,
    recipe: Annotated[Path, typer.Option(help="A recipe (JSON), or the name of one.")],
    json: Json = False,
) -> None:
    """Keep a recipe under a name, by which the page and other verbs find it."""
    read, named = read_recipe(recipe), shelf()
    second = named.second(recipe.name) if not recipe.exists() and recipe.name in named.names() else None
    kept = named.save(name, read, second)
    result(json, {"name": kept}, f"The recipe is kept as {kept!r}: use it with --recipe {quote(kept)}.")


def delete(name: Name, *, json: Json = False) -> None:
    """Delete a named recipe; the files that it was saved from stay."""
    _shelf_with(name).delete(name)
    result(json, {"deleted": name}, f"The recipe {name!r} is deleted.")


def require_used(floor_contributions: Path | None, recipe: Recipe) -> None:
    """Raise `InputError` for a second analysis that would change nothing: whoever gives one expects that it does."""
    if floor_contributions is not None and not recipe.needs_second_analysis:
        raise InputError(
            f"The recipe has no floors or class_minimums that go by a second analysis, such as {floor_contributions}.",
            "Leave --floor-contributions out, or say floor_analysis: second in the recipe, and a floor.",
        )
