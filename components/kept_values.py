"""What else a person finds again after a reload, as small JSON: settings, maps that were tried, routings."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.staging import staged

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptValues:
    """One value of `kind` per user and reference, in `folder`."""

    folder: Path
    kind: str

    def path(self, user: str, reference: str) -> Path:
        """The file of a user and a reference, whatever letters their names have."""
        names = (hashlib.sha256(text.encode()).hexdigest()[:16] for text in (user, reference))
        return self.folder / f"{'.'.join(names)}.{self.kind}.json"

    def read(self, user: str, reference: str) -> Any:
        """What was kept; None where that is nothing, or nothing that can be read."""
        path = self.path(user, reference)
        if not user or not path.is_file():
            return None
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            _LOG.warning("%s cannot be read: %s", path, error)  # better to begin anew than not at all
            return None

    def write(self, user: str, reference: str, value: Any) -> None:
        """Remember `value`, which JSON can say; nothing is written while it is not known whose it is."""
        if not user:
            return
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        with staged(self.path(user, reference), overwrite=True) as partial:
            partial.write_text(text, encoding="utf-8")
