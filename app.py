"""The page: `python app.py` opens the studio in a browser, with the demo model loaded."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported: nothing here calls home

import gradio as gr

from components import transitions
from components.journey import journey
from components.library import DEMO_ANALYSIS, Library
from components.page import Studio
from components.running import Stop, end, health, keep_inside
from components.sessions import Sessions
from components.state import StudioState
from components.theme import FAVICON, STYLESHEETS, head, plotly_script, theme
from studio.discretion import be_discreet
from studio.errors import EspalierError, InputError
from studio.jobs import runner
from studio.jobs.store import JobStore
from studio.jobs.task import DEMO
from studio.limits import LIMITS, UPLOAD
from studio.workspace import Workspace


def flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """What a person can say when starting the page."""
    parser = argparse.ArgumentParser(prog="python app.py", description="Espalier: prune a mixture-of-experts model.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=None, help="port (default: the first free one from 7860)")
    parser.add_argument(
        "--reference", type=Path, help="model to open: a safetensors folder or a GGUF (default: the demo)"
    )
    parser.add_argument("--contributions", type=Path, help="analysis of it to open (default: the demo's)")
    parser.add_argument("--workspace", type=Path, help="where results go (default: $ESPALIER_HOME or ~/.espalier)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    return parser.parse_args(arguments)


def credentials(host: str) -> list[tuple[str, str]] | None:
    """Who may log in, `ESPALIER_AUTH=USER:PASSWORD` with a line for each person; `InputError` when others can reach a
    page without a login."""
    told = os.environ.get("ESPALIER_AUTH", "").strip()
    people = [line.strip().partition(":") for line in told.splitlines() if line.strip()]
    if any(not user or not password for user, _, password in people):
        raise InputError("ESPALIER_AUTH is not of the form USER:PASSWORD, with a line for each person.")
    if people:
        return [(user, password) for user, _, password in people]
    if host in ("127.0.0.1", "localhost", "::1"):
        return None
    raise InputError(f"Others can reach {host}, and the page has no login.", "Set ESPALIER_AUTH=USER:PASSWORD.")


def studio_of(given: argparse.Namespace) -> Studio:
    """Open what the page shows first; raises as `Library` does."""
    workspace = Workspace.open(given.workspace)
    keep_inside(workspace)
    library = Library(workspace)
    names = library.reference_names()
    name = library.adopt_reference(given.reference) if given.reference else (DEMO if DEMO in names else "")
    reference = library.reference(name) if name else None
    analysis = given.contributions or (DEMO_ANALYSIS if name in (DEMO, "") and DEMO_ANALYSIS.exists() else None)
    key = library.open_analysis(analysis, reference) if analysis else None
    model = reference or (library.analysis(key) if key else None)
    first = transitions.fitted(library, StudioState.opening(name, key, model.shape if model else None))
    sessions = Sessions(library, fresh=bool(given.reference or given.contributions))
    store = JobStore(workspace)
    store.owner = secrets.token_hex(4)
    return Studio(library, store, first, sessions)


def page_of(studio: Studio) -> gr.Blocks:
    """The whole page."""
    with gr.Blocks(title="Espalier", analytics_enabled=False, fill_width=True) as page:
        journey(studio, page)
    return page


def main(arguments: list[str] | None = None) -> int:
    given = flags(arguments)
    be_discreet()
    try:
        login = credentials(given.host)
        _ = [limit.value for limit in LIMITS]  # a wrong one is told before anything starts
        studio = studio_of(given)
    except (EspalierError, OSError) as error:
        sys.stderr.write(f"espalier: {error}\n")
        return 2
    gr.set_static_paths([plotly_script(), *STYLESHEETS])
    page = page_of(studio).queue()
    stop = Stop()
    try:
        _launch(page, given, login, studio)
        runner.refresh(studio.store)  # what was paused goes on
    except OSError as error:  # the port is taken, or the address is not this machine's
        sys.stderr.write(f"espalier: {error}\n")
        return 2
    stop.wait()
    return end(studio, page)


def _launch(page: gr.Blocks, given: argparse.Namespace, login: list[tuple[str, str]] | None, studio: Studio) -> None:
    page.launch(
        server_name=given.host,
        auth=login,
        server_port=given.port,
        inbrowser=not given.no_browser,
        allowed_paths=[str(studio.library.workspace.artifacts)],
        head=head(),
        theme=theme(),
        favicon_path=FAVICON,
        app_kwargs={"routes": [health(studio)]},
        prevent_thread_lock=True,
        _frontend=False,  # or gradio asks itself for the page, and gives up on a busy machine
        footer_links=[],
        max_file_size=UPLOAD.value,
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        share=False,  # gradio would open a tunnel by itself in some notebooks
    )


if __name__ == "__main__":
    sys.exit(main())
