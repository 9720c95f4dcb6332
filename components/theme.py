"""How the page looks: the colours are tokens in assets/espalier.css, and gradio's own widgets are told to use them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).resolve().parent.parent / "assets"
STYLESHEETS = [ASSETS / "espalier.css", ASSETS / "chat.css", ASSETS / "publish.css"]
FAVICON = ASSETS / "favicon.svg"

# System fonts only: the page works on a machine without a network, and no font arrives late.
SANS = (
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Noto Sans",
    "Liberation Sans",
    "sans-serif",
)
MONO = ("ui-monospace", "SF Mono", "Cascadia Code", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

_PAPER, _PAPER_DARK = "#f5f3ea", "#101613"  # gradio paints these before any stylesheet has arrived

# gradio's theme variable → our token; each token has its own value in the dark
_WIDGETS = {
    "background_fill_primary": "var(--card)",
    "background_fill_secondary": "var(--paper)",
    "body_text_color": "var(--ink)",
    "body_text_color_subdued": "var(--ink-soft)",
    "border_color_primary": "var(--rule)",
    "border_color_accent": "var(--leaf)",
    "border_color_accent_subdued": "var(--rule)",
    "color_accent_soft": "var(--leaf-soft)",
    "link_text_color": "var(--leaf)",
    "link_text_color_hover": "var(--ink)",
    "link_text_color_active": "var(--ink)",
    "link_text_color_visited": "var(--leaf)",
    "code_background_fill": "var(--well)",
    "block_background_fill": "transparent",
    "block_border_color": "transparent",
    "block_border_width": "0px",
    "block_shadow": "none",
    "block_info_text_color": "var(--ink-soft)",
    "block_label_background_fill": "transparent",
    "block_label_border_width": "0px",
    "block_label_text_color": "var(--ink)",
    "block_title_text_color": "var(--ink)",
    "panel_background_fill": "transparent",
    "panel_border_width": "0px",
    "accordion_text_color": "var(--ink)",
    "table_text_color": "var(--ink)",
    "checkbox_background_color": "var(--card)",
    "checkbox_background_color_focus": "var(--card)",
    "checkbox_background_color_hover": "var(--leaf-soft)",
    "checkbox_background_color_selected": "var(--leaf-fill)",
    "checkbox_border_color": "var(--edge)",
    "checkbox_border_color_focus": "var(--leaf)",
    "checkbox_border_color_hover": "var(--leaf)",
    "checkbox_border_color_selected": "var(--leaf-fill)",
    "checkbox_label_background_fill": "transparent",
    "checkbox_label_background_fill_hover": "var(--leaf-soft)",
    "checkbox_label_background_fill_selected": "var(--leaf-soft)",
    "checkbox_label_border_color": "var(--rule)",
    "checkbox_label_border_color_hover": "var(--edge)",
    "checkbox_label_border_color_selected": "var(--leaf)",
    "checkbox_label_border_width": "1px",
    "checkbox_label_text_color": "var(--ink)",
    "checkbox_label_text_color_selected": "var(--ink)",
    "checkbox_label_shadow": "none",
    "error_background_fill": "var(--clay-soft)",
    "error_border_color": "var(--clay)",
    "error_text_color": "var(--clay)",
    "error_icon_color": "var(--clay)",
    "input_background_fill": "var(--field)",
    "input_background_fill_focus": "var(--field)",
    "input_border_color": "var(--edge)",
    "input_border_color_focus": "var(--leaf)",
    "input_placeholder_color": "var(--ink-soft)",
    "input_shadow": "none",
    "input_shadow_focus": "none",
    "loader_color": "var(--leaf)",
    "slider_color": "var(--leaf-fill)",
    "stat_background_fill": "var(--leaf-fill)",
    "button_primary_background_fill": "var(--leaf-fill)",
    "button_primary_background_fill_hover": "var(--leaf-deep)",
    "button_primary_border_color": "transparent",
    "button_primary_border_color_hover": "transparent",
    "button_primary_text_color": "var(--on-leaf)",
    "button_primary_text_color_hover": "var(--on-leaf)",
    "button_secondary_background_fill": "transparent",
    "button_secondary_background_fill_hover": "var(--leaf-soft)",
    "button_secondary_border_color": "var(--edge)",
    "button_secondary_border_color_hover": "var(--leaf)",
    "button_secondary_text_color": "var(--ink)",
    "button_secondary_text_color_hover": "var(--ink)",
    "button_cancel_background_fill": "transparent",
    "button_cancel_background_fill_hover": "var(--clay-soft)",
    "button_cancel_border_color": "var(--clay)",
    "button_cancel_text_color": "var(--clay)",
    "button_cancel_text_color_hover": "var(--clay)",
}


def theme() -> gr.themes.Base:
    """Gradio's plainest theme with Espalier's colours, spacing and type."""
    result = gr.themes.Base(
        primary_hue="green",
        neutral_hue="stone",
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
        font=SANS,
        font_mono=MONO,
    )
    both = {name + suffix: value for name, value in _WIDGETS.items() for suffix in ("", "_dark")}
    known = {name: value for name, value in both.items() if hasattr(result, name)}
    return result.set(
        **known,
        body_background_fill=_PAPER,
        body_background_fill_dark=_PAPER_DARK,
        block_label_text_weight="600",
        block_title_text_weight="600",
        block_title_text_size="*text_sm",
        block_padding="0px",
        layout_gap="16px",
        button_border_width="1px",
        input_border_width="1px",
        input_border_width_dark="1px",
        button_large_text_weight="600",
        button_large_padding="10px 18px",
        button_large_text_size="*text_md",
    )


def panel(value: str = "", **settings: Any) -> gr.HTML:
    """HTML of ours, with our styles only and without a handler of clicks."""
    return gr.HTML(value, apply_default_css=False, js_on_load=None, **settings)


def plotly_script() -> Path:
    """plotly.js as the plotly package ships it; found without importing the package, which would take a while."""
    spec = find_spec("plotly")
    assert spec is not None and spec.submodule_search_locations is not None, "plotly is in requirements.txt"
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()  # gradio serves no file through a link
    return folder / "package_data" / "plotly.min.js"


def static_url(path: Path) -> str:
    """Where the browser finds a file that gradio serves, relative to the page: right behind a proxy too."""
    return f"gradio_api/file={path}"


POLICY = "img-src 'self' data: blob:; media-src 'self' data: blob:; object-src 'none'; form-action 'none'"
"""What the page may load and send: gradio leaves pictures and forms in what a model says, which may name any place."""


def head() -> str:
    """The content policy, and links to the style sheets: gradio's `css` would prefix selectors, also `:root`."""
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    return policy + "".join(f'<link rel="stylesheet" href="{static_url(sheet)}">' for sheet in STYLESHEETS)


def script(name: str) -> str:
    """The text of a script in assets/, for `js_on_load`."""
    return (ASSETS / name).read_text(encoding="utf-8")
