"""The verbs, put together; and the one place where the command line renders errors.

Exit codes: 0, done; 1, a bug (with its traceback), or something broken that `doctor` found; 2, a mistake that one
sentence on stderr explains; 130, cancelled.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from studio.cli import (
    build,
    chat,
    clean,
    contributions,
    diverge,
    doctor,
    evaluate,
    fits,
    imatrix,
    insights,
    jobs,
    measure,
    models,
    prompts,
    publish,
    recipes,
    search,
    votes,
)
from studio.errors import Cancelled, EspalierError, ProcessError
from studio.jobs.interrupt import Interrupt

Verb = tuple[Callable[..., Any], str]
"""What it calls, and an example of it."""

VERBS: dict[str, Verb] = {
    "prompts": (prompts.prompts, "prompts builtin:code,math --model demo --show 2"),
    "analyze": (contributions.analyze, "analyze demo --prompts builtin --prompts prompts.jsonl --out demo.safetensors"),
    "import": (contributions.import_, "import expert_neuron_v4.json --out v4.safetensors"),
    "merge": (contributions.merge, "merge v4.safetensors prose.safetensors --out both.safetensors"),
    "insights": (insights.insights, "insights demo.safetensors"),
    "similarity": (insights.similarity, "similarity demo --layers 6 --pairs 100"),
    "map": (contributions.map_, "map v4.safetensors --preset 98e-v4 --drop 30 --class-weight code=3 --out map.json"),
    "measure": (measure.measure, "measure demo --map map.json"),
    "search": (
        search.search,
        "search demo --contributions demo.safetensors --drop 8 --drop 16 --budget 120 --out found",
    ),
    "build": (build.build, "build demo --map map.json --safetensors --tier Q4_K_M --tier Q8_0 --name demo-16e"),
    "prune": (models.prune, "prune my-model --map map.json --out my-model-98e"),
    "convert": (models.convert, "convert my-model --out my-model.gguf"),
    "plan": (models.plan, "plan my-model.gguf --tier Q4_K_M --json"),
    "quantize": (models.quantize, "quantize my-model.gguf --tier Q4_K_M --tier Q6_K --map map.json --out tiers"),
    "diverge": (diverge.diverge, "diverge small-Q4_K_M.gguf --against my-model.gguf --text book.txt --context 512"),
    "fits": (fits.fits, "fits small-Q4_K_M.gguf --gpu-gib 12 --context 8192 --with my-model.gguf"),
    "chat": (chat.chat, 'chat small.gguf --against my-model.gguf --prompt "What is 2 + 2?"'),
    "verify": (publish.verify, "verify my-model-98e"),
    "replay": (publish.replay, "replay my-model-98e"),
    "card": (publish.card, "card my-model-98e --repo OWNER/my-model-98e"),
    "ollama": (publish.ollama, "ollama my-model-98e"),
    "publish": (publish.publish, "publish my-model-98e --repo OWNER/my-model-98e --dry-run"),
    "evaluate": (evaluate.evaluate, "evaluate small.gguf --task mmlu-pro.jsonl --against my-model.gguf"),
    "harness": (evaluate.harness, "harness small.gguf --task gsm8k --against my-model.gguf --limit 200"),
    "doctor": (doctor.doctor, "doctor --json"),
    "clean": (clean.clean, "clean --dry-run"),
    "results": (evaluate.results, "results --against my-model.gguf --sort accuracy --export results.md"),
    "votes": (votes.votes, "votes --json"),
}
JOB_VERBS: dict[str, Verb] = {
    "list": (jobs.list_, "jobs list"),
    "show": (jobs.show, "jobs show 1f0c9a2e"),
    "cancel": (jobs.cancel, "jobs cancel 1f0c9a2e"),
    "resume": (jobs.resume, "jobs resume 1f0c9a2e"),
}
IMATRIX_VERBS: dict[str, Verb] = {
    "show": (imatrix.show, "imatrix show imatrix.gguf"),
    "merge": (imatrix.merge, "imatrix merge prose.gguf code.gguf --out both.gguf"),
    "convert": (imatrix.convert, "imatrix convert imatrix.dat --out imatrix.gguf"),
    "slice": (imatrix.slice_, "imatrix slice imatrix.gguf --map map.json --model my-model.gguf --out pruned.gguf"),
}
RECIPE_VERBS: dict[str, Verb] = {
    "import": (recipes.import_, "recipe import drop_map.json.summary.json --out recipe.json"),
    "schema": (recipes.schema, "recipe schema"),
    "list": (recipes.list_, "recipe list"),
    "show": (recipes.show, "recipe show 'for code'"),
    "save": (recipes.save, "recipe save 'for code' --recipe recipe.json"),
    "delete": (recipes.delete, "recipe delete 'for code'"),
    "link": (recipes.link, "recipe link recipe.json --contributions v4.safetensors"),
}
TASK_VERBS: dict[str, Verb] = {
    "show": (evaluate.show_task, "tasks show mmlu-pro.jsonl"),
    "convert": (evaluate.convert_task, "tasks convert mmlu-pro test.parquet --out mmlu-pro.jsonl"),
}
GROUPS: dict[str, tuple[str, dict[str, Verb]]] = {
    "jobs": ("Look after long jobs, which go on when the page is closed.", JOB_VERBS),
    "tasks": ("Look into files of questions with known answers, and make them from benchmarks.", TASK_VERBS),
    "recipe": (
        "Read how published maps were made, write down how one's own were, and keep recipes by name.",
        RECIPE_VERBS,
    ),
    "imatrix": ("Look into importance matrices, combine them, and cut them to a pruned model.", IMATRIX_VERBS),
}
"""Verbs about one thing: what they are for, and each of them."""

PROGRAM = "python -m studio"
MISTAKE, CANCELLED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and give the exit code; `arguments` are by default those of the process."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # ours is enough
    before = signal.getsignal(signal.SIGTERM)
    Interrupt().install()
    try:
        code = _app()(args=given or ["--help"], prog_name=PROGRAM, standalone_mode=False)
    except (Cancelled, KeyboardInterrupt, typer.Abort):
        _complain("Cancelled.")
        return CANCELLED
    except EspalierError as error:
        _complain(str(error), error.log_tail if isinstance(error, ProcessError) else "")
        return MISTAKE
    except typer.TyperException as error:
        _complain(f"{error.format_message()} `{_meant(error)} --help` shows how.")
        return MISTAKE
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        _complain(f"{error.filename}: {error.strerror}.")
        return MISTAKE
    finally:
        signal.signal(signal.SIGTERM, before)
    if code == CANCELLED:  # what typer makes of Ctrl-C
        _complain("Cancelled.")
    return code if isinstance(code, int) else 0


def _app() -> typer.Typer:
    app = _group("From a mixture-of-experts model to a smaller one, every step a verb.")
    for name, (function, example) in VERBS.items():
        app.command(name, epilog=_example(example))(function)
    for title, (about, verbs) in GROUPS.items():
        group = _group(about, _example(next(iter(verbs.values()))[1]))
        for name, (function, example) in verbs.items():
            group.command(name, epilog=_example(example))(function)
        app.add_typer(group, name=title)
    return app


def _group(about: str, epilog: str | None = None) -> typer.Typer:
    # Plain help and plain errors: no boxes, and nothing to import for them.
    app = typer.Typer(
        help=about, epilog=epilog, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    app.callback()(lambda: None)  # a group even with a single verb
    return app


def _example(command: str) -> str:
    return f"\b\nExample:\n  {PROGRAM} {command}"  # \b: keep these lines as they are


def _meant(error: typer.TyperException) -> str:
    """The command that was being read when `error` came up."""
    context = getattr(error, "ctx", None)
    return PROGRAM if context is None else str(context.command_path)


def _complain(sentence: str, log_tail: str = "") -> None:
    if log_tail:
        print(log_tail, file=sys.stderr)
    print(" ".join(sentence.split()), file=sys.stderr)
