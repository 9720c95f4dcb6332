"""The model card: a text and beside it what becomes of it; what is written is kept with the artifact as it is typed."""

from __future__ import annotations

import base64
import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, cast

import gradio as gr

from components.markup import failure, notice
from components.publish_manifest import measures_of, opened
from components.theme import panel, script
from studio.errors import EspalierError, FormatError
from studio.publish.artifact import Artifact, Format, open_artifact
from studio.publish.card import make_card
from studio.publish.card_head import base_in, head_problem, licence_in, with_base, with_licence
from studio.publish.card_kept import (
    CardText,
    bring_card_back,
    card_path,
    keep_card,
    read_card,
    set_card_aside,
)
from studio.publish.front_matter import is_repository
from studio.publish.licence import HUB_LICENSES
from studio.workspace import Workspace

Updates = dict[Any, Any]

_LIVE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_TYPES = {"svg": "image/svg+xml", "png": "image/png"}
_DIFF_LINES = 200
"""Of a difference, as many are shown."""


@dataclass(frozen=True)
class CardPart:
    """What the wiring needs of this part."""

    text: gr.Textbox
    preview: gr.Markdown
    pictures: gr.Textbox
    """Name → data address, as JSON: for the browser, which renders the preview."""
    place: gr.Textbox
    """Which card the text is, as `place_json` tells; beside the text in the browser, so that both are always of one
    artifact."""
    status: gr.HTML
    again: gr.Button
    back: gr.Button
    sure: gr.Column
    difference: gr.HTML
    replace: gr.Button
    leave: gr.Button
    ask: gr.Row
    licence: gr.Dropdown
    state_licence: gr.Button
    ask_base: gr.Row
    base: gr.Textbox
    state_base: gr.Button

    @property
    def changing(self) -> list[Any]:
        """What follows from another artifact."""
        shown = [self.text, self.pictures, self.place]
        return [
            *shown,
            self.status,
            self.again,
            self.back,
            self.sure,
            self.difference,
            self.ask,
            self.ask_base,
            self.base,
        ]


def card_part() -> CardPart:
    """Lay the part out; it is filled for an artifact."""
    with gr.Row(elem_classes="halves card-halves"):
        with gr.Column(min_width=300):
            text = gr.Textbox(
                label="The card, in Markdown", lines=28, max_lines=28, elem_id="card-text", elem_classes="code-text"
            )
            status = panel(elem_id="card-status")
            with gr.Row(visible=False, elem_id="card-licence", elem_classes="shelf") as ask:
                licence = gr.Dropdown(
                    sorted(HUB_LICENSES),
                    value=None,
                    allow_custom_value=True,
                    label="Under which licence?",
                    info="that of the base: nobody but you can tell",
                    elem_id="card-licence-name",
                )
                state_licence = gr.Button("Put it into the card", elem_id="card-licence-set")
            with gr.Row(visible=False, elem_id="card-base", elem_classes="shelf") as ask_base:
                base = gr.Textbox(
                    label="What is the base called on the Hub?",
                    placeholder="OWNER/NAME",
                    info="the Hub shows this model beside it then; without, it stands alone",
                    max_lines=1,
                    elem_id="card-base-name",
                )
                state_base = gr.Button("Put it into the card", elem_id="card-base-set")
            with gr.Row(elem_classes="trial-controls"):
                again = gr.Button("Generate again", visible=False, elem_id="card-again")
                back = gr.Button("Bring my text back", visible=False, elem_id="card-back")
            with gr.Column(visible=False, elem_id="card-sure") as sure:
                difference = panel()
                with gr.Row(elem_classes="trial-controls"):
                    replace = gr.Button("Replace my text", variant="stop", elem_id="card-replace")
                    leave = gr.Button("Keep my text", elem_id="card-keep")
        with gr.Column(min_width=300):
            panel("<p class='label'>As it will look</p>")
            preview = gr.Markdown(elem_id="card-preview", sanitize_html=True, latex_delimiters=[])
    pictures = gr.Textbox(visible="hidden")
    place = gr.Textbox(visible="hidden")
    return CardPart(
        text, preview, pictures, place, status, again, back, sure, difference, replace, leave, ask, licence,
        state_licence, ask_base, base, state_base,
    )  # fmt: skip


def place_json(artifact: str, part: str | None, repository: str, card: CardText) -> str:
    """Which card of which artifact a text is, and what it was when it was last read or kept."""
    return json.dumps({"artifact": artifact, "part": part, "repository": repository, "digest": card.digest})


def pictures_json(pictures: Mapping[str, bytes]) -> str:
    """The pictures as data addresses: they are shown without being served, and an SVG in one runs no script."""
    return json.dumps(
        {
            name: f"data:{_TYPES[name.rpartition('.')[2]]};base64,{base64.b64encode(content).decode()}"
            for name, content in pictures.items()
        }
    )


def status_html(artifact: Artifact, part: str | None, card: CardText) -> str:
    """Whose text it is, where it is kept, and what the Hub would not understand."""
    kept = escape(card_path(artifact, cast("Format | None", part)).name)
    whose = (
        f"Your text, kept with the artifact as <code>{kept}</code> while you write."
        if card.is_own
        else "Generated from the manifest and what was measured. Change it freely: what you write is kept as you type."
    )
    problem = head_problem(card.text)
    more = notice(problem, "The Hub refuses a card whose head it cannot read.", "warning") if problem else ""
    if not problem and not licence_in(card.text):
        more = notice("The card names no licence.", "Without one, nobody knows what they may do with it.", "warning")
    return f"<p class='quiet'>{whose}</p>{more}"


def difference_html(mine: str, made: str) -> str:
    """What would be lost and come when `mine` is replaced by `made`."""
    lines = [
        line
        for line in difflib.unified_diff(mine.splitlines(), made.splitlines(), lineterm="", n=1)
        if not line.startswith(("---", "+++"))
    ]
    if not lines:
        return notice("The generated card is the same as your text.")

    def shown(line: str) -> str:
        kind = {"-": "del", "+": "ins"}.get(line[:1], "span")
        return f"<{kind}>{escape(line)}</{kind}>"

    gone = sum(line.startswith("-") for line in lines)
    what = f"{gone} {'line' if gone == 1 else 'lines'} of your text would be replaced."
    more = f"<p class='quiet'>{len(lines) - _DIFF_LINES} more lines.</p>" if len(lines) > _DIFF_LINES else ""
    told = "\n".join(map(shown, lines[:_DIFF_LINES]))
    return f"{notice(what, 'It can be brought back afterwards.', 'warning')}<pre class='log diff'>{told}</pre>{more}"


def read(workspace: Workspace, artifact: Artifact, part: str | None, repository: str) -> CardText:
    """The card as it is now; an unfinished name of a repository is not taken into it."""
    named = repository if is_repository(repository) else None
    measured = measures_of(workspace, artifact)
    return read_card(artifact, cast("Format | None", part), repository=named, measured=measured)


def filled(part: CardPart, workspace: Workspace, artifact: Artifact, chosen: str | None, repository: str) -> Updates:
    """New values of `CardPart.changing` for `artifact`."""
    card = read(workspace, artifact, chosen, repository)
    return {
        part.text: card.text,
        part.pictures: pictures_json(card.pictures),
        part.place: place_json(artifact.folder.name, chosen, repository, card),
        part.difference: "",
        part.sure: gr.Column(visible=False),
        part.base: "",
        **_followed(part, artifact, chosen, card),
    }


def _followed(part: CardPart, artifact: Artifact, chosen: str | None, card: CardText) -> Updates:
    """What says whose the text is."""
    return {
        part.status: status_html(artifact, chosen, card),
        part.again: gr.Button(visible=card.is_own),
        part.back: gr.Button(visible=card.has_former),
        part.ask: gr.Row(visible=not head_problem(card.text) and not licence_in(card.text)),
        part.ask_base: gr.Row(visible=not head_problem(card.text) and not base_in(card.text)),
    }


def wire_card(workspace: Workspace, part: CardPart) -> None:
    """What its controls do."""

    def found(place: str) -> tuple[Artifact, Format | None, dict[str, Any]]:
        try:
            told = json.loads(place)
            name, chosen = str(told["artifact"]), told["part"]
        except (ValueError, KeyError, TypeError):
            raise FormatError("The page", "card", "it does not say which card its text is", "Reload it.") from None
        return open_artifact(workspace.inside(workspace.artifacts / name)), chosen, told

    def on_text(text: str, place: str) -> Updates:
        if not place:
            return {part.status: gr.skip()}
        try:
            artifact, chosen, told = found(place)
            card = keep_card(artifact, chosen, text, str(told["digest"]), measures_of(workspace, artifact))
        except EspalierError as error:
            return {part.status: failure(error)}
        return {
            part.place: place_json(artifact.folder.name, chosen, str(told["repository"]), card),
            **_followed(part, artifact, chosen, card),
        }

    def anew(place: str, act: Callable[[Artifact, Format | None], None]) -> Updates:
        try:
            artifact, chosen, told = found(place)
            act(artifact, chosen)
            whole = opened(workspace, artifact.folder.name)
            return filled(part, workspace, whole, chosen, str(told["repository"]))
        except EspalierError as error:
            return {part.status: failure(error)}

    def on_again(text: str, place: str) -> Updates:
        """What generating would replace; nothing changes yet."""
        try:
            artifact, chosen, told = found(place)
            whole = opened(workspace, artifact.folder.name)
            name = str(told["repository"]) if is_repository(str(told["repository"])) else None
            made = generated(workspace, whole, chosen, name)
        except EspalierError as error:
            return {part.status: failure(error)}
        return {part.sure: gr.Column(visible=True), part.difference: difference_html(text, made)}

    def on_licence(name: str | None, text: str, place: str) -> Updates:
        try:
            changed = with_licence(text, name or "")
        except EspalierError as error:
            return {part.status: failure(error)}
        return {part.text: changed, **on_text(changed, place)}

    def on_base(name: str, text: str, place: str) -> Updates:
        try:
            artifact, chosen, _ = found(place)
            changed = with_base(text, name, [chosen] if chosen else artifact.formats)
        except EspalierError as error:
            return {part.status: failure(error)}
        return {part.text: changed, **on_text(changed, place)}

    shown = [part.text, part.pictures]
    gr.on([part.text.change, part.pictures.change], None, shown, part.preview, js=script("card_preview.js"), **_LIVE)
    kept = [part.place, part.status, part.again, part.back, part.ask, part.ask_base]
    part.text.input(on_text, [part.text, part.place], kept, trigger_mode="always_last", **_LIVE)
    part.state_licence.click(on_licence, [part.licence, part.text, part.place], [part.text, *kept], **_LIVE)
    gr.on(
        [part.state_base.click, part.base.submit],
        on_base,
        [part.base, part.text, part.place],
        [part.text, *kept],
        **_LIVE,
    )
    part.again.click(on_again, [part.text, part.place], [part.sure, part.difference, part.status], **_LIVE)
    part.leave.click(lambda: gr.Column(visible=False), None, part.sure, **_LIVE)
    part.replace.click(lambda place: anew(place, set_card_aside), part.place, part.changing, **_LIVE)
    part.back.click(lambda place: anew(place, bring_card_back), part.place, part.changing, **_LIVE)


def generated(workspace: Workspace, artifact: Artifact, part: Format | None, repository: str | None) -> str:
    """The card that would be made now, whatever somebody wrote."""
    measured = measures_of(workspace, artifact)
    return make_card(artifact, repository=repository, formats=[part] if part else None, measured=measured).text
