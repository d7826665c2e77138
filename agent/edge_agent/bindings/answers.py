"""Where answers go, and that none comes back as a question. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_agent.bindings import filters
from edge_agent.bindings.settings import Binding
from edge_contract.errors import InputFault
from edge_contract.topics import Topics


def answer_topic(binding: Binding, topics: Topics, device: str) -> str:
    """Where a binding publishes. Raises InputFault for a topic that is not for answers.

    This device may publish its own state and telemetry; no binding must overwrite those.
    """
    if not binding.publish.topic:
        return topics.answers(device, binding.title)
    names: Mapping[str, str] = {
        "fleet": topics.fleet, "device": device,
        "model": binding.model, "binding": binding.title,
    }  # fmt: skip
    topic = binding.publish.topic
    for name, value in names.items():
        topic = topic.replace(f"{{{name}}}", value)
    filters.check_topic(topic)
    own = topics.answers(device, "x").removesuffix("x")
    reserved = topic == topics.root or topic.startswith(f"{topics.root}/")
    if topic.startswith("$") or (reserved and not topic.startswith(own)) or "{" in topic:
        raise InputFault(
            f"{topic!r} is not for answers",
            advice=f"Name a topic outside {topics.root}, or one under {own}",
        )
    return topic


def faults_of(bindings: Sequence[Binding], topics: Topics, device: str) -> list[str]:
    """Topics that are not for answers or inputs, and bindings that feed themselves; a line each."""
    published: dict[str, str] = {}
    faults: list[str] = []
    for each in bindings:
        try:
            published[each.title] = answer_topic(each, topics, device)
        except InputFault as error:
            faults.append(f"[[bindings]] {each.title}: publish.topic: {error.what}")
        faults += [
            f"[[bindings]] {each.title}: {pattern!r} takes in what this device is asked or told on"
            f" {own!r}; name the sensors' topics"
            for pattern in each.topics
            for own in _asked_on(topics, device)
            if not each.broker and filters.overlap(pattern, own)
        ]
    return faults or _circles(bindings, published)


def _asked_on(topics: Topics, device: str) -> tuple[str, ...]:
    """What the agent subscribes to: some brokers would send it a message of these twice."""
    requests, labels = topics.request_filter(device), topics.labels_filter(device)
    return topics.desired(device), topics.status(device), requests, labels


def _circles(bindings: Sequence[Binding], published: Mapping[str, str]) -> list[str]:
    feeds: dict[str, set[str]] = {each.title: set() for each in bindings}
    for giver in bindings:
        topic = published[giver.title]
        for taker in bindings:
            heard = any(filters.matches(pattern, topic) for pattern in taker.topics)
            if heard and giver.broker == taker.broker:
                feeds[giver.title].add(taker.title)
    faults = []
    for title, next_ones in feeds.items():
        reached, ahead = set[str](), set(next_ones)
        while ahead:
            reached |= ahead
            ahead = set().union(*(feeds[each] for each in ahead)) - reached
        if title in reached:
            faults.append(f"[[bindings]] {title}: its own answers would come back to it as input")
    return faults
