"""The child process that holds a reference in torch: `python -m studio.evaluate.virtual_worker`.

After its settings it reads one JSON line per request from stdin: `{"id", "verb": "answer" | "measure", …}`, or
`{"id", "verb": "stop"}` for one that is to end. Answers take turns of a quarter of a second, as many as there are
slots; what comes after them waits, and hears how many are before it. A measurement is made in one go. Every line that
it answers has the request's `id`, and the last one `result` or `error`. See `studio.child` for how it begins and ends.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
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


@dataclass(eq=False)
class _Work:
    """A request, and what is left to do for it, turn by turn."""

    request: Mapping[str, Any]
    turns: Iterator[None]
    told: int = 0
    """How many are before it, as it was told last."""

    @property
    def number(self) -> int:
        return int(self.request["id"])


class Worker:
    """Answers requests with the model that it holds."""

    def __init__(self, virtual: VirtualModel, settings: Mapping[str, Any], answers: TextIO) -> None:
        self._virtual = virtual
        self._context = int(settings["context"])
        self._slots = int(settings["slots"])
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
        """Work on requests for ever: on one for a turn, then on the next; what has come meanwhile comes before it."""
        begun: deque[_Work] = deque()
        line: deque[_Work] = deque()
        unfinished: list[_Work] = []
        while True:
            while not self._waiting.empty() or not (begun or line or unfinished):
                request = self._waiting.get()
                line.append(_Work(request, self._begin(request)))
            for work in [work for work in line if work.number in self._stopped]:
                line.remove(work)
                self._turn(work)  # which ends it
            while line and len(begun) + len(unfinished) < self._slots:
                begun.append(line.popleft())
            begun.extend(unfinished)
            if not begun:
                continue
            self._tell(line)
            work = begun.popleft()
            unfinished = [work] if self._turn(work) else []

    def _begin(self, request: Mapping[str, Any]) -> Iterator[None]:
        return {"answer": self._answer, "measure": self._measure}[request["verb"]](request)

    def _turn(self, work: _Work) -> bool:
        """Work on a request for a turn; whether it needs another."""
        try:
            next(work.turns)
        except StopIteration:
            pass
        except EspalierError as error:
            self._fail(work.number, type(error).__name__, error.what, error.remedy)
        except Exception as error:
            traceback.print_exc()  # into the log
            self._fail(work.number, "ProcessError", f"Unexpected {type(error).__name__}: {error}.", "")
        else:
            return True
        self._stopped.discard(work.number)
        return False

    def _tell(self, line: Iterable[_Work]) -> None:
        """Say to those who wait how many are before them, when that has changed."""
        for place, work in enumerate(line, start=self._slots):
            if work.told != place:
                work.told = place
                self._say(work.number, waiting=place)

    def _answer(self, request: Mapping[str, Any]) -> Iterator[None]:
        """Say the answer; gives the turn to others now and then."""
        number = request["id"]
        if number in self._stopped:
            self._say(number, result=_delta(VirtualDelta(done=True, finish="stopped")))
            return
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
            if delta is None:
                yield
            else:
                self._say(number, **{"result" if delta.done else "delta": _delta(delta)})

    def _measure(self, request: Mapping[str, Any]) -> Iterator[None]:
        """Measure, and say the result; in one turn."""
        number = request["id"]

        def progress(done: int, total: int, unit: str = "", message: str = "") -> None:
            if number in self._stopped:
                raise Cancelled()
            self._say(number, progress=[done, total, unit, message])

        ruler = self._ruler(request)
        self._say(number, result=ruler.measure(self._drop(request), progress).to_json())
        yield from ()

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

    def _fail(self, number: int, kind: str, what: str, remedy: str) -> None:
        self._say(number, error={"kind": kind, "what": what, "remedy": remedy})

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
