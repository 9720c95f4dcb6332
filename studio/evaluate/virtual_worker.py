"""The child process that holds a reference in torch: `python -m studio.evaluate.virtual_worker`.

After its settings it reads one JSON line per request from stdin: `{"id", "verb": "answer" | "measure", …}`, or
`{"id", "verb": "stop"}` for one that is to end. Requests are worked on one after the other. Every line that it answers
has the request's `id`, and the last one `result` or `error`. See `studio.child` for how it begins and ends.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from studio import child
from studio.contributions.calibration import Calibration
from studio.contributions.sources import prompts_of
from studio.errors import Cancelled, EspalierError
from studio.evaluate.held_out import held_out
from studio.evaluate.virtual import Ruler, VirtualModel
from studio.evaluate.virtual_answer import VirtualDelta, answer
from studio.recipes.dropmap import DropMap
from studio.serve.client import Sampler

KEPT_RULERS = 2
"""Sets of prompts whose reference logits are kept at hand."""


class Worker:
    """Answers requests with the model that it holds."""

    def __init__(self, virtual: VirtualModel, settings: Mapping[str, Any], answers: TextIO) -> None:
        self._virtual = virtual
        self._context = int(settings["context"])
        self._cache = Path(settings["cache"]) if settings.get("cache") else None
        self._answers = answers
        self._waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._stopped: set[int] = set()
        self._rulers: OrderedDict[str, Ruler] = OrderedDict()

    def listen(self) -> None:
        """Read requests until the parent is gone; then this process ends."""
        for line in sys.stdin:
            request = json.loads(line)
            if request["verb"] == "stop":
                self._stopped.add(request["id"])
            else:
                self._waiting.put(request)
        os._exit(1)

    def work(self) -> None:
        """Answer one request after the other, for ever."""
        while True:
            request = self._waiting.get()
            try:
                {"answer": self._answer, "measure": self._measure}[request["verb"]](request)
            except EspalierError as error:
                self._fail(request, type(error).__name__, error.what, error.remedy)
            except Exception as error:
                traceback.print_exc()  # into the log
                self._fail(request, "ProcessError", f"Unexpected {type(error).__name__}: {error}.", "")
            self._stopped.discard(request["id"])

    def _answer(self, request: Mapping[str, Any]) -> None:
        number = request["id"]
        if number in self._stopped:
            return self._say(number, result=_delta(VirtualDelta(done=True, finish="stopped")))
        for delta in answer(
            self._virtual,
            request["messages"],
            Sampler(**request["sampler"]),
            context=self._context,
            thinking=request["thinking"],
            drop=self._drop(request),
            probabilities=request["probabilities"],
            stopped=lambda: number in self._stopped,
        ):
            self._say(number, **{"result" if delta.done else "delta": _delta(delta)})
        return None

    def _measure(self, request: Mapping[str, Any]) -> None:
        number = request["id"]

        def progress(done: int, total: int, unit: str = "", message: str = "") -> None:
            if number in self._stopped:
                raise Cancelled()
            self._say(number, progress=[done, total, unit, message])

        ruler = self._ruler(request)
        self._say(number, result=ruler.measure(self._drop(request), progress).to_json())

    def _ruler(self, request: Mapping[str, Any]) -> Ruler:
        key = json.dumps([request["sources"], request["reading"], request["options"]], sort_keys=True)
        calibration: Calibration = prompts_of(request["sources"], **request["reading"])
        key += calibration.digest  # a file may have changed
        if key not in self._rulers:
            prompts = held_out(self._virtual.tokenizer, calibration, **request["options"])
            self._rulers[key] = Ruler(self._virtual, prompts, self._cache)
            if len(self._rulers) > KEPT_RULERS:
                self._rulers.popitem(last=False)
        self._rulers.move_to_end(key)
        return self._rulers[key]

    def _drop(self, request: Mapping[str, Any]) -> DropMap | None:
        if request["drop"] is None:
            return None
        return DropMap.from_json(request["drop"], shape=self._virtual.shape)

    def _fail(self, request: Mapping[str, Any], kind: str, what: str, remedy: str) -> None:
        self._say(request["id"], error={"kind": kind, "what": what, "remedy": remedy})

    def _say(self, number: int, **content: Any) -> None:
        self._answers.write(json.dumps({"id": number, **content}) + "\n")
        self._answers.flush()


def _delta(delta: VirtualDelta) -> dict[str, Any]:
    return {
        "text": delta.text,
        "reasoning": delta.reasoning,
        "done": delta.done,
        "finish": delta.finish,
        "timing": None if delta.timing is None else asdict(delta.timing),
        "routing": None if delta.routing is None else delta.routing.to_json(),
        "tokens": [asdict(token) for token in delta.tokens],
    }


def main() -> None:
    settings, answers = child.begin()
    if settings.get("threads"):
        import torch

        torch.set_num_threads(settings["threads"])
    try:
        virtual = VirtualModel.load(Path(settings["model"]), settings["dtype"])
    except EspalierError as error:
        problem = {"kind": type(error).__name__, "what": error.what, "remedy": error.remedy}
        answers.write(json.dumps({"error": problem}) + "\n")
        answers.flush()
        sys.exit(str(error))
    worker = Worker(virtual, settings, answers)
    threading.Thread(target=worker.listen, daemon=True).start()
    answers.write(
        json.dumps({"ready": True, "dtype": str(virtual.model.dtype), "device": str(virtual.model.device)}) + "\n"
    )
    answers.flush()
    worker.work()


if __name__ == "__main__":
    main()
