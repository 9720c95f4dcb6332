"""What came of jobs that verify, build again, publish or hand over an artifact, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

from components.markup import copyable, notice
from studio.jobs.replay import same_in_words
from studio.units import size_text

Result = Mapping[str, Any]

_BESIDE = ("README", "pictures/", "ollama/")
"""What lies beside the files of a manifest and may change: the card, its pictures, Modelfiles."""


def verified(result: Result) -> str:
    """Which file is not what it was."""
    problems, strangers = list(result.get("problems", ())), list(result.get("strangers", ()))
    if problems:
        verb = "is not what it was" if len(problems) == 1 else "are not what they were"
        count = f"{len(problems)} of {result['files']} files {verb}"
        told = notice(f"{count}.", "Build it again, or bring back a copy.", "error") + _list(problems)
    else:
        whole = "The file is what it was" if result["files"] == 1 else f"All {result['files']} files are what they were"
        told = notice(f"{whole}, {size_text(int(result['bytes']))}.")
    unknown = [name for name in strangers if not str(name).startswith(_BESIDE)]
    if unknown:
        told += f"<p class='quiet'>The manifest does not name these, and nothing is known of them:</p>{_list(unknown)}"
    return told


def replayed(result: Result) -> str:
    """Whether the second build has the same bytes, and where not."""
    differences, remarks = list(result.get("differences", ())), list(result.get("remarks", ()))
    same, compared = int(result.get("same", 0)), bool(result.get("compared", True))
    says = f"Built again. {same_in_words(same, len(differences), compared=compared)}"
    told = notice(says, "", "error") + _list(differences) if differences else notice(says)
    return told + (f"<p class='quiet'>{' '.join(map(escape, map(str, remarks)))}</p>" if remarks else "")


def published(result: Result) -> str:
    """Where it lies now."""
    address = str(result.get("url", ""))
    shown = escape(address, quote=True)
    link = f"<a href='{shown}' target='_blank' rel='noopener'>{shown}</a>" if address.startswith("http") else shown
    sent = f"{result.get('files')} files, {size_text(int(result.get('bytes', 0)))}"
    commit = escape(str(result.get("commit", ""))[:12])
    return f"<p>{sent}, are at {link}.</p><p class='quiet'>Commit <span class='mono'>{commit}</span></p>"


def created(result: Result) -> str:
    """How it is run."""
    model = escape(str(result.get("model", "")))
    command = copyable(str(result.get("run", "")), "the command that runs it")
    return f"<p>Ollama has it as <strong>{model}</strong>. {escape(str(result.get('says', '')))}</p>{command}"


OUTCOMES: Mapping[str, Callable[[Result], str]] = {
    "verify": verified,
    "replay": replayed,
    "publish": published,
    "ollama": created,
}
"""Kind of job → its outcome as HTML."""


def differs(kind: str, result: Result) -> bool:
    """Whether a job that is done has found that something is not what it should be."""
    return bool({"verify": result.get("problems"), "replay": result.get("differences")}.get(kind))


def _list(lines: Iterable[object]) -> str:
    return f"<ul class='said'>{''.join(f'<li>{escape(str(line))}</li>' for line in lines)}</ul>"
