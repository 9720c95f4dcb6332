"""People without a browser: the same requests as a page makes, so that the processor is left to the studio."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from functools import partial
from typing import Any

import httpx
from gradio_client.utils import apply_diff

from tests.load.app import PASSWORD, login
from tests.load.plan import Action, Stay, actions, mark, one_after_the_other, paced
from tests.load.record import LOST_S, Record

_API = "gradio_api/"
_KEEP_S = 2.0
"""A connection is used again for so long: the server closes those that were idle for five seconds."""


class Refused(Exception):
    """The studio answered with an error."""


class Tab:
    """What a page in a browser knows: the value of every component, and which function follows which event."""

    def __init__(self, client: httpx.AsyncClient, config: dict[str, Any]) -> None:
        self.client = client
        self.session = secrets.token_hex(6)
        self.values = {one["id"]: one["props"].get("value") for one in config["components"]}
        self.ids = {one["props"]["elem_id"]: one["id"] for one in config["components"] if one["props"].get("elem_id")}
        self.timers = [
            (one["id"], one["props"]["value"])
            for one in config["components"]
            if one["type"] == "timer" and one["props"].get("active", True)
        ]
        self.functions: dict[tuple[int | None, str], list[dict[str, Any]]] = {}
        self.followers: dict[int, list[dict[str, Any]]] = {}
        calling = [one for one in config["dependencies"] if not one["trigger_only_on_failure"]]
        taken = next(one["id"] for one in calling if [self.ids["send"], "click"] in one["targets"])
        self.asking = next(one for one in calling if one["trigger_after"] == taken)
        """What asks a question that the browser has taken out of its box."""
        for function in calling:
            if not function["backend_fn"] or function.get("js"):  # panels that are folded ask nothing
                continue
            if function["trigger_after"] is not None:
                self.followers.setdefault(function["trigger_after"], []).append(function)
                continue
            for target, event in function["targets"]:
                self.functions.setdefault((target, event), []).append(function)

    def openings(self) -> list[dict[str, Any]]:
        """What a page does as soon as it is there."""
        return [one for (_, event), functions in self.functions.items() if event == "load" for one in functions]

    async def send(self, function: dict[str, Any]) -> None:
        """Call a function that has no queue, take over what it answers, and go on with those that follow it."""
        answer = await self.client.post(f"{_API}run/predict", json=self._body(function), timeout=LOST_S)
        if answer.status_code >= 400:
            raise Refused(f"{answer.status_code} {answer.text[:200]}")
        self._take(function, answer.json()["data"])
        for follower in self.followers.get(function["id"], []):
            await self.send(follower)

    async def stream(self, function: dict[str, Any], watched: int) -> float:
        """Call a function of the queue, up to its end; seconds until component `watched` ended with an answer."""
        began = time.monotonic()
        answer = await self.client.post(f"{_API}queue/join", json=self._body(function), timeout=LOST_S)
        if answer.status_code >= 400:
            raise Refused(f"{answer.status_code} {answer.text[:200]}")
        event, data, first = answer.json()["event_id"], None, None
        query = {"session_hash": self.session}
        async with self.client.stream("GET", f"{_API}queue/data", params=query, timeout=LOST_S) as told:
            async for line in told.aiter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("event_id") != event or "output" not in message:
                    continue
                if not message["success"]:
                    raise Refused(str(message["output"].get("error")))
                sent = message["output"].get("data") or []
                if message["msg"] == "process_generating":
                    data = [apply_diff(old, new) for old, new in zip(data, sent, strict=True)] if data else sent
                    self._take(function, data)
                    if first is None and _answered(self.values[watched]):
                        first = time.monotonic() - began
                if message["msg"] == "process_completed":
                    break
            else:
                raise Refused("it was broken off")
        for follower in self.followers.get(function["id"], []):
            await self.send(follower)
        if first is None:
            raise Refused("it ended without an answer")
        return first

    def _body(self, function: dict[str, Any]) -> dict[str, Any]:
        return {
            "data": [self.values.get(id) for id in function["inputs"]],
            "fn_index": function["id"],
            "session_hash": self.session,
            "trigger_id": function["targets"][0][0],
            "event_data": None,
        }

    def _take(self, function: dict[str, Any], data: list[Any]) -> None:
        for id, value in zip(function["outputs"], data, strict=True):
            if isinstance(value, dict) and value.get("__type__") == "update":
                if "value" in value:
                    self.values[id] = value["value"]
            else:
                self.values[id] = value


def _answered(messages: Any) -> bool:
    return bool(messages and messages[-1]["role"] == "assistant" and messages[-1]["content"])


class Person:
    """Somebody who acts until their stay is over, with one tab after the other."""

    def __init__(self, number: int, url: str, record: Record) -> None:
        self.number, self.url, self.record = number, url, record

    async def live(self, seed: int, stay: Stay) -> None:
        """Log in, then act as `plan.actions` says. What fails is a complaint, and the person goes on."""
        limits = httpx.Limits(keepalive_expiry=_KEEP_S)
        async with httpx.AsyncClient(base_url=self.url, timeout=LOST_S, limits=limits) as client:
            await client.post("login", data={"username": login(self.number), "password": PASSWORD})
            tab, open_for = await self._opened(client)
            async for action in paced(actions(seed, self.number), stay):
                try:
                    if action.kind == "reload":
                        await self._close(open_for)
                        tab, open_for = await self._opened(client)
                    else:
                        await self._act(tab, action)
                except (Refused, httpx.HTTPError) as error:
                    self.record.complain(self.number, f"{action.kind}: {type(error).__name__}: {error}")
                self._look(tab)
            await self._close(open_for)

    async def _opened(self, client: httpx.AsyncClient) -> tuple[Tab, list[asyncio.Task[None]]]:
        began = time.monotonic()
        await client.get("")
        config = (await client.get("config")).json()
        tab = Tab(client, config)
        open_for = [asyncio.create_task(self._heartbeat(tab))]
        for function in tab.openings():
            await tab.send(function)
        open_for += [asyncio.create_task(self._tick(tab, timer, seconds)) for timer, seconds in tab.timers]
        self.record.took("opening", time.monotonic() - began)
        return tab, open_for

    async def _close(self, open_for: list[asyncio.Task[None]]) -> None:
        for task in open_for:
            task.cancel()
        await asyncio.gather(*open_for, return_exceptions=True)

    async def _heartbeat(self, tab: Tab) -> None:
        """By this the studio knows that the tab is still open."""
        with contextlib.suppress(httpx.HTTPError):
            async with tab.client.stream("GET", f"{_API}heartbeat/{tab.session}", timeout=None) as beats:
                async for _ in beats.aiter_lines():
                    pass

    async def _tick(self, tab: Tab, timer: int, seconds: float) -> None:
        """What the page looks at by itself."""
        while True:
            await asyncio.sleep(seconds)
            try:
                for function in tab.functions.get((timer, "tick"), []):
                    await tab.send(function)
            except (Refused, httpx.HTTPError) as error:
                self.record.complain(self.number, f"tick: {type(error).__name__}: {error}")

    async def _act(self, tab: Tab, action: Action) -> None:
        ids = tab.ids
        if action.kind == "chat":
            tab.values[ids["asked"]] = action.value
            self.record.took("first token", await tab.stream(tab.asking, ids["chat-A"]))
            return
        control = ids[action.kind]
        tab.values[control] = int(action.value) if action.kind == "drop" else action.value
        began = time.monotonic()
        for function in tab.functions[control, "input"]:
            await tab.send(function)
        if action.kind == "drop":
            self.record.took("preview", time.monotonic() - began)

    def _look(self, tab: Tab) -> None:
        """Nobody else's words may be here."""
        text = json.dumps(list(tab.values.values()), default=str)
        for other in range(100):
            if other != self.number and mark(other) in text:
                self.record.complain(self.number, f"sees a conversation of person {other}")


async def live(url: str, people: int, seed: int, stay: Stay, record: Record) -> None:
    """All people, each for their stay."""
    lives = (partial(Person(number, url, record).live, seed, stay) for number in range(people))
    await one_after_the_other(lives, stay.apart_s)
