"""The verbs for what leaves the machine: verify, replay, ollama, card, publish."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from studio.cli.terminal import Json, Overwrite, artifact_path, model_path, note, progress_bar, result, size
from studio.errors import InputError, MismatchError
from studio.workspace import Workspace

Artifact = Annotated[
    Path,
    typer.Argument(
        help="The name of a build, or the folder of an artifact, or its manifest.",
        metavar="ARTIFACT",
        callback=artifact_path,
    ),
]


Chosen = Annotated[
    Literal["safetensors", "gguf"] | None,
    typer.Option("--format", help="Which files, where the artifact has safetensors and GGUF."),
]


Base = Annotated[
    str | None,
    typer.Option(help="What the Hub calls the reference, OWNER/NAME, where its own name does not tell."),
]


def verify(artifact: Artifact, json: Json = False) -> None:
    """Read every file that a manifest names, and say which is not what it was.

    The exit code is 2 when one is not.
    """
    from studio.publish.verify import verify as read

    with progress_bar() as progress:
        found = read(artifact, progress)
    if found.problems and not json:
        raise MismatchError(f"{found.manifest}: {' '.join(found.problems)}", "Build it again, or fetch it again.")
    whole = "the file is what it was" if found.files == 1 else f"all {found.files} files are what they were"
    lines = [f"{found.manifest}: {whole}, {size(found.bytes)}."]
    lines += [f"  {name} is not in the manifest: nothing is known of it." for name in found.strangers]
    if found.beside:
        lines.append(f"  Not in the manifest, as they may change: {', '.join(found.beside)}.")
    fields = {
        "manifest": str(found.manifest),
        "files": found.files,
        "bytes": found.bytes,
        "problems": list(found.problems),
        "strangers": list(found.strangers),
        "beside": list(found.beside),
    }
    result(json, fields, "\n".join(lines))
    if found.problems:
        raise typer.Exit(2)


def replay(
    manifest: Annotated[
        Path,
        typer.Argument(
            help="A manifest, or the folder that has it, or the name of a build.",
            metavar="MANIFEST",
            callback=artifact_path,
        ),
    ],
    *,
    reference: Annotated[
        Path | None, typer.Option(help="The reference; by default as it is called in the workspace, or demo.")
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option(help="The importance matrix; by default looked for in the workspace.")
    ] = None,
    contributions: Annotated[
        Path | None, typer.Option(help="The analysis: then the recipe makes the map again too.")
    ] = None,
    floor_contributions: Annotated[
        Path | None, typer.Option(help="The second analysis, where the recipe's floors go by one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Keep what was made in this folder.")] = None,
    afresh: Annotated[
        bool, typer.Option("--afresh", help="Convert the reference to GGUF again, even where that was done before.")
    ] = False,
    json: Json = False,
) -> None:
    """Build again what a manifest tells of, and compare the bytes.

    The first difference of each file is named. The exit code is 2 when there is one.
    """
    from studio.errors import OutputExistsError
    from studio.jobs.replay import STORIES, found_sources
    from studio.jobs.replay import replay as build_again
    from studio.publish.manifest import Manifest
    from studio.publish.verify import manifest_path

    if out is not None and out.exists():
        raise OutputExistsError(out)
    workspace, path = Workspace.open(), manifest_path(manifest)
    given = {"imatrix": imatrix, "contributions": contributions, "floor_contributions": floor_contributions}
    known = {name: one for name, one in given.items() if one is not None}
    model = None if reference is None else model_path(reference)
    sources = found_sources(Manifest.read(path), workspace, model, **known)
    with progress_bar() as progress:
        stories = workspace.root / STORIES
        found = build_again(path, sources, workspace.cache, out=out, stories=stories, afresh=afresh, progress=progress)
    fields = {
        "equal": found.equal,
        "same": found.same,
        "differences": list(found.differences),
        "remarks": list(found.remarks),
        "compared": found.compared,
    }
    result(json, fields, "\n".join([found.says, *found.differences, *found.remarks]))
    if not found.equal:
        raise typer.Exit(2)


def ollama(
    artifact: Artifact,
    *,
    out: Annotated[
        Path | None, typer.Option(help="The folder for the Modelfiles; by default `ollama` in the artifact.")
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Run `ollama create` for every file, where that program is installed.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a Modelfile for every GGUF file, and say what to type.

    Beside them lie `template` and `params`, which Ollama reads on the Hub.
    """
    from studio.publish.artifact import open_artifact
    from studio.publish.ollama import commands, local_name, write_files
    from studio.publish.ollama_create import create as run

    opened = open_artifact(artifact)
    folder = out or opened.folder / "ollama"
    written = write_files(opened, folder)
    if not written:
        raise InputError(
            f"{opened.folder} has no GGUF file for Ollama, which loads no models that are split into parts.",
            "Build one with `build --tier`, and without --split-max-size.",
        )
    tiers = {f"{file.path.stem}.Modelfile": file.tier or "latest" for file in opened.ggufs}
    typed = {name: commands(opened.name, tiers[name], folder / name) for name in written}
    if create:
        with progress_bar() as progress:
            for name, model in written.items():
                run(model, local_name(opened.name, tiers[name]), progress)
    files = [
        {"modelfile": str(folder / name), "gguf": str(model.gguf), "says": model.remark, "commands": list(typed[name])}
        for name, model in written.items()
    ]
    lines = [line for name in written for line in (f"{folder / name}:", *(f"  {one}" for one in typed[name]))]
    remarks = dict.fromkeys(model.remark for model in written.values())
    result(json, {"folder": str(folder), "files": files}, "\n".join([*lines, *remarks]))


def card(
    artifact: Artifact,
    *,
    chosen: Chosen = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; by default the card in the artifact, which `publish` takes.")
    ] = None,
    repo: Annotated[
        str | None, typer.Option(help="Where it will lie on the Hub: OWNER/NAME, for the lines that people copy.")
    ] = None,
    base: Base = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write the model card of an artifact, with its pictures beside it.

    Everything in it is told by the manifest and by what was measured, which the manifest then names. Changed by you, it
    is published as it is; unchanged, it is made anew when it is published, with what was measured since.
    """
    from studio.errors import OutputExistsError
    from studio.publish.artifact import keep_measures, open_artifact
    from studio.publish.card import make_card
    from studio.publish.card_kept import as_generated, card_path
    from studio.publish.measures import comparisons
    from studio.publish.repository import chosen_format

    opened = open_artifact(artifact)
    part = chosen_format(opened, chosen)
    target = out or card_path(opened, part)
    if target.exists() and not overwrite:
        raise OutputExistsError(target)
    opened = keep_measures(opened)
    measured = comparisons(opened, Workspace.open())
    made = make_card(opened, repository=repo, formats=[part], measured=measured, base_model=base)
    (made if out else as_generated(made)).write(target)
    fields = {"out": str(target), "pictures": list(made.pictures)}
    result(
        json, fields, f"{target}, with {len(made.pictures)} pictures. Read it before it leaves, and change it freely."
    )


def publish(
    artifact: Artifact,
    *,
    repo: Annotated[str, typer.Option(help="The repository on the Hub: OWNER/NAME.")],
    chosen: Chosen = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see it; by default it is private.")] = False,
    base: Base = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List every file and its size, and send nothing.")] = False,
    json: Json = False,
) -> None:
    """Send an artifact to the Hub, after reading all of it back.

    The token comes from HF_TOKEN. Stopped and called again, it goes on where it was.
    """
    from studio.jobs.publish import Publish, plan_artifact, send
    from studio.publish.artifact import keep_measures, open_artifact, with_measures
    from studio.publish.hub import hub_token

    workspace = Workspace.open()
    wanted = Publish(artifact=str(artifact), repository=repo, format=chosen, public=public, base_model=base)
    opened = open_artifact(artifact)
    opened = with_measures(opened) if dry_run else keep_measures(opened)
    plan = plan_artifact(opened, workspace, wanted)
    if dry_run:
        files = [{"name": file.name, "bytes": file.bytes} for file in plan.files]
        lines = [f"{size(file.bytes):>12}  {file.name}" for file in plan.files]
        lines += plan.remarks
        seen = "private" if plan.private else "public"
        says = f"{len(files)} files, {size(plan.bytes)}, would go to {repo} ({seen}). Nothing was sent."
        fields = {"repository": repo, "private": plan.private, "files": files, "bytes": plan.bytes}
        fields |= {"remarks": list(plan.remarks)}
        result(json, fields, "\n".join([*lines, says]))
        return
    hub_token()
    for remark in plan.remarks:
        note(remark)
    with progress_bar() as progress:
        sent = send(opened, plan, workspace, progress)
    result(json, sent, f"{sent['url']}: {len(plan.files)} files, {size(plan.bytes)}.")
