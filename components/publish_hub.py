"""The Hub: what would be sent, what is missing, and the token; nothing is sent from here, a job does."""

from __future__ import annotations

from contextlib import suppress
from html import escape

import gradio as gr

from components.hub_login import hub_login
from components.markup import notice, table
from studio.errors import EspalierError, InputError
from studio.jobs.publish import Publish, plan_artifact
from studio.jobs.store import Job
from studio.publish import hub
from studio.publish.artifact import Artifact
from studio.publish.hub import TOKEN_VARIABLES
from studio.publish.manifest import FILE_NAME
from studio.publish.repository import WEIGHTS, Upload
from studio.units import size_text
from studio.workspace import Workspace

WRITING = {"contribute-repos", "manage-repos", "write-repos"}
"""Of what a login at the Hub can allow, each of these lets an app make repositories or write to them."""
_KINDS = {
    "README.md": "the card",
    FILE_NAME: "how it was made, and how anybody makes it again",
    "template": "for Ollama: its template",
    "params": "for Ollama: parameters",
    "config.json": "for transformers",
    "tokenizer.json": "for transformers",
}


def hub_token(request: gr.Request | None = None) -> str:
    """The token with which whoever sent `request` publishes; `InputError` where there is none.

    Theirs, where they have logged in at the Hub, and never the one that the studio was started with, which is somebody
    else's then. Nobody writes it down.
    """
    return own_token(request) or hub.hub_token()


def own_token(request: gr.Request | None) -> str | None:
    """The token that came with the login at the Hub of whoever sent `request`; None where they did not come that way.

    Raises `InputError` where the login does not allow to write.
    """
    login = hub_login(request.request) if request is not None and request.request is not None else None
    if login is None:
        return None
    if not WRITING & set(str(login.get("scope", "")).split()):
        raise InputError(
            "Your login at the Hub lets this page read your name, and not write to your repositories.",
            f"Whoever runs this Space adds `{min(WRITING)}` to its hf_oauth_scopes. Then log out, and in again.",
        )
    return str(login.get("access_token") or "") or None


def has_token(request: gr.Request | None = None) -> bool:
    """Whether whoever sent `request` can publish."""
    with suppress(EspalierError):
        return bool(hub_token(request))
    return False


def missing_html(request: gr.Request | None = None, kind: str = "warning") -> str:
    """Whether there is a token; whether the Hub answers is only asked when something is to be sent. `kind` is how
    strongly it is said that there is none."""
    try:
        own = own_token(request)
        hub_token(request)
    except EspalierError as error:
        return notice(error.what, error.remedy, kind)
    if own:
        return "<p class='quiet'>It goes with your own login at the Hub, which is never shown or written down.</p>"
    return f"<p class='quiet'>The token is the one in {TOKEN_VARIABLES[0]}; it is never shown or written down.</p>"


def parameters(name: str | None, repository: str, part: str | None, public: bool) -> dict[str, str | bool | None]:
    """What the job `publish` is told. Raises `InputError` where something was not chosen."""
    if not name:
        raise InputError("No artifact is chosen.", "Build one first.")
    if not repository.strip():
        raise InputError("The repository has no name.", "Write OWNER/NAME.")
    return {"artifact": f"artifacts/{name}", "repository": repository.strip(), "format": part, "public": public}


def plan(workspace: Workspace, artifact: Artifact, asked: dict[str, str | bool | None]) -> Upload:
    """Every file and its size; nothing is sent. Raises as `plan_upload` does."""
    return plan_artifact(artifact, workspace, Publish.model_validate(asked))


def plan_html(planned: Upload) -> str:
    """The dry run: all files, the largest concern first, and their total."""
    rows = [(f"<span class='mono'>{escape(file.name)}</span>", size_text(file.bytes), kind_of(file.name))
            for file in planned.files]  # fmt: skip
    rows.append((f"<strong>{len(planned.files)} files</strong>", f"<strong>{size_text(planned.bytes)}</strong>", ""))
    seen = "private: only you see it" if planned.private else "public: everybody sees it"
    head = notice(f"Nothing was sent. This would go to {planned.repository}, {seen}.")
    head += "".join(notice(remark, "", "warning") for remark in planned.remarks)
    return head + table(("File", "Size", "What it is"), rows, numeric=(1,))


def kind_of(name: str) -> str:
    """What a file of a repository is for."""
    if name.endswith(WEIGHTS):
        return "weights"
    if name.startswith("pictures/"):
        return "a picture of the card"
    if name.startswith("measures/"):
        return "a result, without questions and answers"
    return _KINDS.get(name, "")


def last_repository(jobs: list[Job]) -> tuple[str, bool]:
    """(name, whether public) of where an artifact went last, `jobs` being its uploads; nothing, and private, else."""
    if not jobs:
        return "", False
    return str(jobs[0].parameters.get("repository", "")), bool(jobs[0].parameters.get("public"))
