"""Sending a repository to the Hub: resumable, private unless told otherwise, with a token that is kept nowhere.

huggingface_hub does the sending. A file that arrived is not sent again: after a broken connection, or when the whole
is started again, it goes on with what is missing.
"""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import EspalierError, InputError, ProcessError
from studio.progress import Progress, silent
from studio.publish.repository import WEIGHTS, RepositoryFile, Upload
from studio.staging import remove, resumable

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
PATIENCE_S: Sequence[float] = (1.0, 3.0, 10.0, 30.0)
"""How long to wait after a connection broke, each time longer; after the last it is given up."""
ANSWER_S = 5.0
"""How long the Hub may take to answer at all, before anything is sent."""
_OWN: ContextVar[str | None] = ContextVar("token", default=None)
_REFUSED = (401, 403, 404)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Uploaded:
    """What came of it."""

    url: str
    commit: str
    """Of the last files: with it the repository is complete."""


@contextmanager
def acting_with(token: str | None) -> Iterator[None]:
    """Have the Hub asked with somebody's own `token` in this block, whatever the environment has; None: with that."""
    before = _OWN.set(token)
    try:
        yield
    finally:
        _OWN.reset(before)


def hub_token() -> str:
    """The token of whoever acts here, else that of the environment; `InputError` where there is none. It is never
    written down."""
    if own := _OWN.get():
        return own
    for name in TOKEN_VARIABLES:
        if token := os.environ.get(name, "").strip():
            return token
    raise InputError(
        f"There is no token for the Hub: {TOKEN_VARIABLES[0]} is not set.",
        "Make one with write access at https://huggingface.co/settings/tokens, and start Espalier with it.",
    )


def require_hub() -> None:
    """Raise `InputError` unless the Hub answers, whatever it says; nothing is told to it."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils._http import get_session

    address = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None).endpoint
    try:
        get_session().head(address, timeout=ANSWER_S)
    except OfflineModeIsEnabled:
        raise InputError("The Hub is switched off: HF_HUB_OFFLINE is set.", "Start Espalier without it.") from None
    except Exception as error:  # httpx raises many kinds: no name, no route, no answer in time
        raise InputError(
            f"The Hub at {address} cannot be reached: {type(error).__name__}.",
            "Connect this machine to the network. A dry run needs none.",
        ) from None


def upload(plan: Upload, scratch: Path, progress: Progress = silent) -> Uploaded:
    """Send all files of `plan`, the weights one by one, and then the rest in one commit.

    A folder of links in `scratch` is what is sent; it vanishes afterwards. Raises `InputError` where the Hub refuses
    the token, the name, or where a private repository was asked for and a public one has that name; `ProcessError`
    where it cannot be reached.
    """
    from huggingface_hub import HfApi

    token = hub_token()
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    sender = Sender(plan.repository, token)
    with resumable(scratch, f"upload of {plan.repository.replace('/', '--')}", "links") as folder:
        place = folder / "files"
        remove(place)  # what a killed upload of other files left
        for file in plan.files:
            file.place(place)
        progress(0, plan.bytes, "bytes", f"Opening {plan.repository}")
        url = sender.tried(partial(_open_repository, api, plan))
        done, commit = 0, ""
        groups = [[file] for file in plan.files if file.name.endswith(WEIGHTS)]
        groups.append([file for file in plan.files if not file.name.endswith(WEIGHTS)])
        for group in groups:
            title = group[0].name if len(group) == 1 else f"the card and {len(group) - 1} other files"
            progress(done, plan.bytes, "bytes", f"Sending {title}")
            commit = sender.tried(partial(_send, api, plan, place, group, title))
            done += sum(file.bytes for file in group)
        progress(plan.bytes, plan.bytes, "bytes", "Sent")
    return Uploaded(url, commit)


def _open_repository(api: HfApi, plan: Upload) -> str:
    """Make the repository unless it is there; its address."""
    url = api.create_repo(plan.repository, private=plan.private, exist_ok=True)
    if plan.private and api.model_info(plan.repository).private is False:
        raise InputError(
            f"{plan.repository} exists on the Hub and is public.",
            "Say --public to add to it, or choose another name.",
        )
    return str(url)


def _send(api: HfApi, plan: Upload, folder: Path, files: Sequence[RepositoryFile], title: str) -> str:
    info: Any = api.upload_folder(
        repo_id=plan.repository,
        folder_path=folder,
        allow_patterns=[glob.escape(file.name) for file in files],
        commit_message=f"Add {title}",
    )
    return str(info.oid)


@dataclass(frozen=True)
class Sender:
    """Tries again what a broken connection stopped, and explains what cannot be mended by that."""

    repository: str
    token: str

    def tried(self, action: Callable[[], str]) -> str:
        """What `action` gives, at the first try that succeeds."""
        for wait in (*PATIENCE_S, None):
            try:
                return action()
            except EspalierError:
                raise
            except Exception as error:  # huggingface_hub, httpx and hf_xet raise many kinds; none may tell the token
                explained = self._explained(error)
            if wait is None or isinstance(explained, InputError):
                raise explained
            logger.warning("%s Trying again in %.0f s.", explained.what, wait)
            time.sleep(wait)
        raise AssertionError("the last try either gives or raises")

    def _explained(self, error: Exception) -> EspalierError:
        from huggingface_hub.errors import OfflineModeIsEnabled

        said = " ".join(str(error).replace(self.token, "…").split())[:500]
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, OfflineModeIsEnabled):
            return InputError("The Hub is switched off: HF_HUB_OFFLINE is set.", "Start Espalier without it.")
        if status in _REFUSED:
            return InputError(
                f"The Hub refuses {self.repository} ({status}): {said}",
                "May your login write there?"
                if _OWN.get()
                else f"Is {TOKEN_VARIABLES[0]} a token of its owner, with write access?",
            )
        if status is not None and 400 <= status < 500 and status not in (408, 409, 429):
            return InputError(f"The Hub did not take {self.repository} ({status}): {said}")
        return ProcessError(
            f"The Hub could not be reached, or broke off: {type(error).__name__}: {said}",
            "Start it again when the connection is back: what arrived is not sent again.",
        )
