"""What a finished artifact is, told by its manifest in a form that people read; nothing of gradio."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from components.markup import count_text, facts, percent_text, table
from studio.evaluate.results_table import value_text
from studio.publish.artifact import Artifact, open_artifact, with_measures
from studio.publish.card_sections import recipe_in_words
from studio.publish.licence import UNKNOWN, is_legal, strictest
from studio.publish.manifest import FILE_NAME, Manifest
from studio.publish.measures import Comparison, comparisons
from studio.recipes.recipe import Recipe
from studio.units import size_text
from studio.workspace import Workspace

NOTHING = (
    "<p class='quiet'>Nothing has been built yet. What the station “Build” makes can be verified, described and "
    "published here.</p>"
)


def artifact_names(workspace: Workspace) -> list[str]:
    """The finished artifacts, the one that was worked on last first."""
    stories = [path for path in workspace.artifacts.glob(f"*/{FILE_NAME}") if not path.parent.name.startswith(".")]
    return [path.parent.name for path in sorted(stories, key=lambda path: path.parent.stat().st_mtime, reverse=True)]


def opened(workspace: Workspace, name: str) -> Artifact:
    """The artifact called so, with what was measured of it until now; raises as `open_artifact` does."""
    return with_measures(open_artifact(workspace.inside(workspace.artifacts / name)))


def measures_of(workspace: Workspace, artifact: Artifact) -> tuple[Comparison, ...]:
    """What was measured, beside the reference's where that was measured on the same ground."""
    return comparisons(artifact, workspace)


def licence_text(manifest: Manifest) -> tuple[str, str]:
    """(licence, where it was read)."""
    named = manifest.reference.licenses
    if not named:
        terms = [name for name in manifest.reference.files if is_legal(name)]
        nowhere = "neither the card nor the files of the reference name one"
        return UNKNOWN, f"the reference names none; its terms are in {', '.join(terms)}" if terms else nowhere
    place = manifest.reference.licenses_from or "the reference's card or files, as its manifest tells"
    more = f"; the strictest of {', '.join(named)}" if len(named) > 1 else ""
    return strictest(named), f"read from {place}{more}"


def facts_html(artifact: Artifact, measured: Iterable[Comparison]) -> str:
    """What it is, in a row."""
    told = artifact.manifest
    size = sum(record.bytes for record in told.files)
    kinds = {"gguf": f"{len(artifact.ggufs)} GGUF", "safetensors": "safetensors"}
    what = " and ".join(kinds[one] for one in artifact.formats)
    rows = [("Made from", told.reference.name, "")]
    if told.map is not None:
        rows.append(("Experts", f"{told.map.kept} of {told.map.experts}", f"in {len(told.map.dropped)} layers"))
        if told.map.parameters and told.reference.parameters:
            share = f"{percent_text(told.map.parameters / told.reference.parameters)} of the reference's"
            rows.append(("Parameters", count_text(told.map.parameters), share))
    rows.append(("Files", size_text(size), what))
    rows.append(("Licence", *licence_text(told)))
    grounds = len(list(measured))
    rows.append(("Measured", f"{grounds} {'ground' if grounds == 1 else 'grounds'}" if grounds else "nothing yet", ""))
    return facts(rows)


def manifest_html(artifact: Artifact, measured: Iterable[Comparison]) -> str:
    """The whole manifest."""
    told = artifact.manifest
    parts = [
        _title("What it was made from"),
        _sources(told),
        _recipe(told),
        _map(told),
        _tiers(artifact),
        _measures(measured),
        _title("What touched the bytes"),
        f"<p>{escape(', '.join(f'{name} {version}' for name, version in sorted(told.versions.items())))}.</p>",
        _title("Files"),
        table(
            ("File", "Size", "SHA-256"),
            ((escape(one.name), size_text(one.bytes), _hash(one.sha256)) for one in told.files),
            numeric=(1,),
        ),
    ]
    return "".join(parts)


def _title(text: str) -> str:
    return f"<h3 class='panel-title'>{escape(text)}</h3>"


def _hash(digest: str | None) -> str:
    if not digest:
        return ""
    return f"<span class='hash mono' title='{escape(digest)}'>{escape(digest[:16])}…</span>"


def _sources(told: Manifest) -> str:
    revision = f"revision {told.reference.revision}" if told.reference.revision else ""
    rows = [("Reference", told.reference.name, revision, told.reference.sha256)]
    rows += [
        (name, "", "", digest)
        for name, digest in (
            ("Contributions", told.contributions),
            ("Contributions of the floors", told.floor_contributions),
            ("Recipe", told.recipe_sha256),
            ("Drop map", told.map.sha256 if told.map else None),
        )
        if digest
    ]
    if told.imatrix is not None:
        rows.append(("Importance matrix", told.imatrix.name, "", told.imatrix.sha256))
    cells = (
        (escape(what), " ".join(filter(None, (escape(name), f"<small>{escape(more)}</small>" if more else ""))), digest)
        for what, name, more, digest in rows
    )
    sources = table(("What", "Name", "SHA-256"), ((what, name, _hash(digest)) for what, name, digest in cells))
    files = ((escape(name), _hash(digest)) for name, digest in told.reference.files.items())
    listed = table(("File of the reference", "SHA-256"), files) if told.reference.files else ""
    return sources + (_folded(f"The reference's {len(told.reference.files)} files", listed) if listed else "")


def _folded(title: str, html: str) -> str:
    return f"<details class='numbers'><summary>{escape(title)}</summary>{html}</details>"


def _recipe(told: Manifest) -> str:
    if told.map is None:
        return ""
    words = f"{_title('How experts were chosen')}<p>{escape(recipe_in_words(told.recipe, told.map.experts))}</p>"
    if told.recipe is None:
        return words
    text = escape(Recipe.from_json(told.recipe).to_json())
    return words + _folded("The recipe as JSON", f"<pre class='log'>{text}</pre>")


def _map(told: Manifest) -> str:
    if told.map is None or not told.map.dropped:
        return ""
    rows = (
        (escape(layer), str(len(experts)), escape(", ".join(map(str, experts))))
        for layer, experts in told.map.dropped.items()
    )
    dropped = table(("Layer", "Dropped", "Experts"), rows, numeric=(1,))
    return _folded("The map: which experts each layer lost", dropped)


def _tiers(artifact: Artifact) -> str:
    if not artifact.ggufs:
        return ""
    rows = (
        (
            escape(file.tier or "as the reference"),
            escape(Path(file.names[0]).name) + (f" and {len(file.names) - 1} more" if len(file.names) > 1 else ""),
            size_text(file.bytes),
            f"{file.bits_per_weight:.2f}",
        )
        for file in artifact.ggufs
    )
    return _title("Tiers") + table(("Tier", "File", "Size", "Bits per weight"), rows, numeric=(2, 3))


def _measures(measured: Iterable[Comparison]) -> str:
    rows = [
        (
            escape(one.title),
            escape(row.name) + (" <small>reference</small>" if row.is_reference else ""),
            escape(f"{one.measure}: {value_text(row.value)}"),
            escape(row.against),
        )
        for one in measured
        for row in one.rows
    ]
    if not rows:
        return f"{_title('Measures')}<p class='quiet'>Nothing was measured yet; the card says so too.</p>"
    return _title("Measures") + table(("On", "Model", "Result", "Against the reference"), rows)
