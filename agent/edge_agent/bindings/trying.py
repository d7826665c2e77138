"""What bindings would answer, shown live: a connection of its own, and nothing is ever published.

Guards: nothing leaves this process but subscriptions; no count of the agent's moves.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

import msgspec

from edge_agent.bindings import results
from edge_agent.bindings.answers import answer_topic
from edge_agent.bindings.bound import Bound
from edge_agent.bindings.build import link_config
from edge_agent.bindings.explain import describe
from edge_agent.bindings.join import Moment, Row
from edge_agent.bindings.payloads import Decoded, Unread
from edge_agent.bindings.settings import Binding
from edge_agent.bindings.sparkplug import Names
from edge_agent.bindings.station import Station, by_filter
from edge_agent.config import Config
from edge_agent.model import Model
from edge_agent.outputs import Prediction
from edge_contract.errors import EdgeError
from edge_contract.ports.mqtt import Link, Message

SHOW_S = 1.0
"""What changed is shown at most this often."""
CONNECT_S = 15.0
_HELD_MAX = 10_000


class Trial:
    """Bindings that listen and never speak.

    Args:
        models: by the name that bindings use.
        suffix: of the client's name: another one than the agent's, which would be cut off.
    """

    def __init__(
        self,
        config: Config,
        bindings: Sequence[Binding],
        models: Mapping[str, Model],
        *,
        suffix: str,
        moment: Callable[[], Moment],
    ) -> None:
        self._config = config
        self._models = models
        self._moment = moment
        self._messages: queue.Queue[tuple[Station, Message, Moment]] = queue.Queue(_HELD_MAX)
        begin_s = moment().monotonic_s
        self._bound: dict[str, Bound] = {}
        self._stations: dict[str, Station] = {}
        self._takers: dict[str, dict[str, tuple[str, ...]]] = {}
        for broker in dict.fromkeys(each.broker for each in bindings):
            own = [each for each in bindings if each.broker == broker]
            fields = {
                source.field
                for each in own
                for source in each.inputs.values()
                if source.format == "sparkplug"
            }
            names = Names(fields)
            for each in own:
                self._bound[each.title] = Bound(each, names, begin_s)
            self._takers[broker] = by_filter({each.title: each.topics for each in own})
            self._stations[broker] = self._listen(broker, suffix)

    def _listen(self, broker: str, suffix: str) -> Station:
        def heard(message: Message) -> None:
            if not self._messages.full():
                self._messages.put_nowait((station, message, self._moment()))

        link = Link(
            link_config(
                self._config, broker, client_id=f"{self._config.agent.device}-try-{suffix}"
            ),
            on_message=heard,
            on_up=lambda _: station.subscribe(),
        )
        station = Station(broker, link, tuple(self._takers[broker]))
        return station

    def run(self, out: TextIO, *, seconds: float, as_json: bool) -> bool:
        """Show what would be answered, for so many seconds (0: for ever); whether anything was.

        Raises PeerFault when a broker is not there, or refuses.
        """
        started: list[Link] = []
        try:
            for station in self._stations.values():
                station.link.start(CONNECT_S)
                started.append(station.link)
            return self._show(out, seconds, as_json)
        finally:
            for link in started:
                link.stop()

    def _show(self, out: TextIO, seconds: float, as_json: bool) -> bool:
        end_s = self._moment().monotonic_s + seconds if seconds else None
        shown: set[str] = set()
        answered = False
        while end_s is None or self._moment().monotonic_s < end_s:
            heard = self._gather()
            for name, bound in self._bound.items():
                now_s = self._moment().monotonic_s
                due = bound.due(now_s)
                if name not in heard and due is None and name in shown:
                    continue
                shown.add(name)
                row = due or bound.row(now_s)
                found, why = self._answer(bound.binding, row)
                answered = answered or found is not None
                out.write(
                    self._as_json(bound, row, found, why, due=due is not None)
                    if as_json
                    else self._as_text(bound, row, found, why, due=due is not None)
                )
                out.flush()
        return answered

    def _gather(self) -> set[str]:
        """Take what arrives within ``SHOW_S``; the bindings that it was for."""
        heard: set[str] = set()
        until_s = self._moment().monotonic_s + SHOW_S
        while (left_s := until_s - self._moment().monotonic_s) > 0:
            try:
                station, message, at = self._messages.get(timeout=left_s)
            except queue.Empty:
                break
            by = station.of(message)
            for name in {name for each in by for name in self._takers[station.name][each]}:
                heard.add(name)
                try:
                    decoded = Decoded(message.topic, message.payload)
                except Unread as unread:
                    self._bound[name].unread(unread.count)
                    continue
                self._bound[name].take(decoded, by, at, retained=message.retain)
        return heard

    def _answer(self, binding: Binding, row: Row) -> tuple[Prediction | None, str]:
        if row.missing and binding.on_missing == "wait":
            return None, "waits for " + ", ".join(row.missing)
        try:
            found = self._models[binding.model].predict(row.values)
        except EdgeError as error:
            return None, error.what
        return (found[0] if isinstance(found, list) else found), ""

    def _as_text(
        self, bound: Bound, row: Row, found: Prediction | None, why: str, *, due: bool
    ) -> str:
        binding = bound.binding
        said = why
        if found is not None:
            answer = results.short(_fields(binding, found, row))
            topic = answer_topic(binding, self._config.topics, self._config.agent.device)
            said = f"{answer}, to be published on {topic}" if due else f"{answer}, if asked now"
        lines = [f"{time.strftime('%H:%M:%S')} {binding.title}: {said}"]
        for name, value in row.values.items():
            age_s = row.ages_s[name]
            age = "" if age_s is None else f"{age_s:.1f} s old"
            shown = f"{value:.6g}" if isinstance(value, float) else str(value)
            value_said = f"missing: {row.missing[name]}" if name in row.missing else shown
            lines.append(
                f"    {name:<20} {value_said:<24} {age:<12} {describe(binding.inputs[name])}"
            )
        odd = bound.report("", connected=True).odd
        if odd:
            lines.append("    not taken: " + ", ".join(f"{n} {kind}" for kind, n in odd.items()))
        return "".join(f"{_printable(line)}\n" for line in lines)

    def _as_json(
        self, bound: Bound, row: Row, found: Prediction | None, why: str, *, due: bool
    ) -> str:
        line = {
            "binding": bound.binding.title,
            "due": due,
            "values": row.values,
            "ages_s": row.ages_s,
            "missing": row.missing,
            "prediction": None if found is None else _fields(bound.binding, found, row),
            "why": why,
            "odd": bound.report("", connected=True).odd,
        }
        return msgspec.json.encode(line).decode() + "\n"


def _fields(binding: Binding, found: Prediction, row: Row) -> dict[str, object]:
    fields = results.fields_of(found, model=binding.model, version="", at_ms=0, row=row.values)
    return {name: value for name, value in fields.items() if name not in ("version", "at_ms")}


def _printable(line: str) -> str:
    """What came from elsewhere moves no cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)
