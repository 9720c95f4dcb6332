"""The page: `python app.py` opens the studio in a browser, with the demo model loaded."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported: nothing here calls home

import gradio as gr
from starlette.middleware import Middleware
from starlette.routing import Route

from components import transitions
from components.door import Door
from components.journey import journey
from components.library import DEMO_ANALYSIS, Library
from components.page import Studio, calm
from components.pages import TABS, Pages, sweep_visitors, whose_html
from components.running import Stop, end, health, settle
from components.sessions import Sessions
from components.state import StudioState
from components.theme import FAVICON, STYLESHEETS, head, panel, plotly_script, theme
from studio.discretion import be_discreet
from studio.errors import EspalierError, InputError
from studio.jobs import runner
from studio.jobs.store import JobStore
from studio.jobs.task import DEMO
from studio.limits import LIMITS, UPLOAD
from studio.logins import Entry, entry_of
from studio.workspace import MODELS_VARIABLE, Workspace

PRIVATE_NETWORKS = "127.0.0.1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
"""Where the proxies before a Space stand."""


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
    parser.add_argument(
        "--models", type=Path, action="append", default=[], metavar="DIR", help="folder of models that may be opened"
    )
    parser.add_argument("--auth-file", type=Path, metavar="FILE", help="who may log in, USER:PASSWORD a line")
    parser.add_argument("--public", action="store_true", help="let everybody in, to the demo and read-only")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    return parser.parse_args(arguments)


def prepare(given: argparse.Namespace, entry: Entry) -> None:
    """Have what was said hold for this process and its jobs. Raises `InputError` where that cannot be."""
    if entry.public and (given.models or given.reference or given.contributions):
        raise InputError("--public serves the demo only.", "Leave --reference, --contributions and --models away.")
    if entry.public:
        os.environ["HF_HUB_OFFLINE"] = "1"  # nobody's job asks the Hub either
    if entry.hub_users and find_spec("authlib") is None:
        raise InputError(
            "A login at the Hub needs a package that is not installed.", "Say `pip install gradio[oauth]`."
        )
    if "SPACE_ID" in os.environ:  # only the Hub's proxies reach a Space, and they say whom they ask for
        os.environ.setdefault("FORWARDED_ALLOW_IPS", PRIVATE_NETWORKS)
    for folder in given.models:
        if not folder.expanduser().is_dir():
            raise InputError(f"There is no folder {folder}.", "Give --models one with models in it.")
    if given.models:
        os.environ[MODELS_VARIABLE] = os.pathsep.join(str(folder.expanduser().resolve()) for folder in given.models)


def studio_of(given: argparse.Namespace, workspace: Workspace) -> Studio:
    """Open what a page on `workspace` shows first; raises as `Library` does."""
    library = Library(workspace)
    names = library.reference_names()
    name = library.adopt_reference(given.reference) if given.reference else (DEMO if DEMO in names else "")
    reference = library.reference(name) if name else None
    analysis = given.contributions or (DEMO_ANALYSIS if name in (DEMO, "") and DEMO_ANALYSIS.exists() else None)
    key = library.open_analysis(analysis, reference) if analysis else None
    model = reference or (library.analysis(key) if key else None)
    first = transitions.fitted(library, StudioState.opening(name, key, model.shape if model else None))
    sessions = Sessions(library, fresh=bool(given.reference or given.contributions))
    return Studio(library, JobStore(workspace), first, sessions)


def page_of(studio: Studio) -> gr.Blocks:
    """The whole page."""
    page = gr.Blocks(title="Espalier", analytics_enabled=False, fill_width=True)
    with page:
        if said := whose_html(studio.library.workspace):
            panel(said, elem_id="whose")
        journey(studio, page)
    calm(page)
    return page


def lobby(entry: Entry) -> gr.Blocks:
    """What lies behind the door while nobody has come in: nothing, and gradio's own way to a login at the Hub."""
    page = gr.Blocks(title="Espalier", analytics_enabled=False)
    with page:
        if entry.hub_users:
            gr.LoginButton()
    return page


def main(arguments: list[str] | None = None) -> int:
    given = flags(arguments)
    be_discreet()
    try:
        _ = [limit.value for limit in LIMITS]  # a wrong one is told before anything starts
        entry = entry_of(given.host, file=given.auth_file, public=given.public)
        prepare(given, entry)
        workspace = Workspace.open(given.workspace)
        settle(workspace)
        pages = Pages(workspace, partial(studio_of, given), page_of, settings(), visitors=entry.public)
        sweep_visitors(workspace)
        first = studio_of(given, workspace)
    except (EspalierError, OSError) as error:
        sys.stderr.write(f"espalier: {error}\n")
        return 2
    gr.set_static_paths([plotly_script(), *STYLESHEETS])
    page = (pages.alone(first) if entry.is_open else lobby(entry)).queue()
    stop = Stop()
    try:
        _launch(page, given, Middleware(Door, entry=entry, pages=pages), health(first.store))
        runner.refresh(first.store)  # what was paused goes on
    except OSError:  # gradio tells how to call gradio
        sys.stderr.write(f"espalier: {nowhere(given)}\n")
        return 2
    stop.wait()
    return end(first.store, pages, page)


def settings() -> dict[str, Any]:
    """How gradio shows every page."""
    return {
        "head": head(),
        "theme": theme(),
        "footer_links": [],
        "enable_monitoring": False,
        "max_file_size": UPLOAD.value,
        "ssr_mode": False,
    }


def nowhere(given: argparse.Namespace) -> str:
    """Why the page cannot be reached, and what to do about it."""
    port = "any port from 7860 to 7959" if given.port is None else f"port {given.port}"
    return (
        f"The page cannot listen at {given.host}, {port}: that is taken, or the address is not this machine's. "
        "Say another with --port PORT, or with --host ADDRESS."
    )


def _launch(page: gr.Blocks, given: argparse.Namespace, door: Middleware, health: Route) -> None:
    page.launch(
        server_name=given.host,
        server_port=given.port,
        inbrowser=not given.no_browser,
        app_kwargs={"middleware": [door], "routes": [health]},
        allowed_paths=[str(Workspace.open(given.workspace).artifacts)],
        favicon_path=FAVICON,
        prevent_thread_lock=True,
        _frontend=False,  # or gradio asks itself for the page, and gives up on a busy machine
        run_history=False,
        state_session_capacity=TABS,
        share=False,  # gradio would open a tunnel by itself in some notebooks
        **settings(),
    )


if __name__ == "__main__":
    sys.exit(main())
