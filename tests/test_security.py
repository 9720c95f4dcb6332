"""The promises of SECURITY.md that the source itself can break."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [ROOT / "app.py", *sorted((ROOT / "studio").rglob("*.py")), *sorted((ROOT / "components").rglob("*.py"))]
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
EXECUTORS = {"eval", "exec", "compile", "__import__"}
STAND_IN = ROOT / "tests" / "publish" / "hub_stand_in.py"
"""Has a token of its own, which opens nothing."""
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")


def broken_promises(source: str) -> Iterator[str]:
    """What in `source` loads pickles, or executes what was loaded."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            for name in [module, *(alias.name for alias in node.names)]:
                if name.partition(".")[0] in UNPICKLERS:
                    yield f"line {node.lineno} imports {name}"
        if not isinstance(node, ast.Call):
            continue
        said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        called = ast.unparse(node.func)
        if called in EXECUTORS or called in ("os.system", "os.popen") or said.get("shell", "False") != "False":
            yield f"line {node.lineno} calls {called}"
        if called == "torch.load" and said.get("weights_only") != "True":
            yield f"line {node.lineno} unpickles with torch.load"
        if called in ("np.load", "numpy.load") and said.get("allow_pickle", "False") != "False":
            yield f"line {node.lineno} unpickles with {called}"
        if said.get("trust_remote_code", "False") != "False":
            yield f"line {node.lineno} trusts code that lies beside a model"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import pickle", "imports pickle"),
        ("from dill import loads", "imports dill"),
        ("eval(text)", "calls eval"),
        ("subprocess.run(line, shell=True)", "calls subprocess.run"),
        ("torch.load(path)", "torch.load"),
        ("torch.load(path, weights_only=False)", "torch.load"),
        ("np.load(path, allow_pickle=True)", "np.load"),
        ("AutoModel.from_pretrained(path, trust_remote_code=trusted)", "trusts code"),
    ],
)
def test_a_broken_promise_is_found(source: str, words: str) -> None:
    assert any(words in found for found in broken_promises(source))


def test_nothing_is_executed_that_is_loaded() -> None:
    found = [
        f"{path.relative_to(ROOT)}, {promise}"
        for path in SOURCES
        for promise in broken_promises(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_no_token_of_the_hub_lies_in_the_tree() -> None:
    suffixes = {".py", ".md", ".js", ".json", ".jsonl", ".toml", ".txt", ".jinja", ".yml", ""}
    hidden = {".venv", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "__pycache__"}
    files = [
        path
        for path in ROOT.rglob("*")
        if path.suffix in suffixes and not hidden & set(path.relative_to(ROOT).parts) and path.is_file()
    ]
    assert len(files) > len(SOURCES)
    found = [path for path in files if TOKEN.search(path.read_text(encoding="utf-8", errors="replace"))]
    assert found == [STAND_IN]


def test_the_page_listens_on_loopback_and_shares_nothing_by_default() -> None:
    calls = [node for node in ast.walk(ast.parse((ROOT / "app.py").read_text())) if isinstance(node, ast.Call)]
    said = [(ast.unparse(node.func), *map(ast.unparse, [*node.args, *node.keywords])) for node in calls]
    (host,) = (call for call in said if call[1:2] == ("'--host'",))
    (launch,) = (call for call in said if call[0].endswith(".launch"))
    assert "default='127.0.0.1'" in host and "share=False" in launch
