"""The login at the Hub that a request comes with, as gradio keeps it: in a signed cookie of the browser's."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request


def hub_login(request: Request) -> dict[str, Any] | None:
    """What the Hub said of whoever logged in there; None where nobody has, or the login has expired."""
    told: Any = request.scope.get("session", {}).get("oauth_info")
    if not isinstance(told, dict) or float(told.get("expires_at") or 0) < time.time():
        return None
    return told


def hub_name(request: Request) -> str | None:
    """Their name on the Hub."""
    told = hub_login(request) or {}
    return str(told.get("userinfo", {}).get("preferred_username") or "") or None
