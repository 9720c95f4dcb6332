"""What the files of a model on the Hub would be, looked up from its header before anything is downloaded."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from components.markup import failure
from components.sizes import chosen_card, size_table
from components.theme import panel
from studio.access import FULL, Access
from studio.checkpoints.remote_header import PREFIX, remote_header
from studio.errors import EspalierError, InputError
from studio.families import shape_of_gguf
from studio.quantize.fit import this_gpu
from studio.quantize.table import counts_around, rows
from studio.quantize.tiers import TIERS
from studio.serve.memory import free_bytes

CONTEXT = 8192
_HELP = (
    "<p class='quiet'>Sizes only: the beginning of each file is fetched, some megabytes, and nothing is kept. Give "
    "<code>owner/name</code> for a safetensors model, <code>owner/name/file.gguf</code> for a GGUF.</p>"
)


def hub_part(access: Access) -> None:
    """Lay it out and wire it."""
    with gr.Accordion("Look at a model on the Hub", open=False, elem_id="hub"):
        panel(_HELP)
        name = gr.Textbox(label="Model on the Hub", max_lines=1, placeholder="owner/name", elem_id="hub-name")
        look = gr.Button("Show sizes", elem_id="hub-look")
        found = panel(elem_id="hub-sizes")
    asked: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}
    gr.on([look.click, name.submit], lambda named: hub_html(named, access), name, found, **asked)


def hub_html(name: str, access: Access = FULL) -> str:
    """The table of all tiers of the model called `name` on the Hub, or why there is none."""
    try:
        access.require_hub()
        return _table(name.strip())
    except EspalierError as error:
        return failure(error)


def _table(name: str) -> str:
    if not name:
        raise InputError("No model was named.", "Write for instance owner/name.")
    with TemporaryDirectory(prefix="espalier-") as folder:
        header = remote_header(f"{PREFIX}{name.removeprefix(PREFIX)}", Path(folder))
    shape = shape_of_gguf(header.values)
    counts = counts_around(shape.experts, shape.top_k, shape.experts)
    names = [tier for tier, known in TIERS.items() if known.layers is None]
    _, card = chosen_card("", this_gpu())
    found = rows(
        header,
        [TIERS[tier] for tier in names],
        counts,
        imatrix=None,
        ranking=None,
        card_bytes=card,
        ram_bytes=free_bytes(),
        context=CONTEXT,
    )
    return size_table(found, counts, shape.experts, [("All tiers", names)])
