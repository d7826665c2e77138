"""MQTT topic filters: are they well formed, and what do they match. MQTT 5, section 4.7. Pure."""

from __future__ import annotations

from edge_contract.errors import InputFault

TOPIC_MAX_CHARS = 512


def check_filter(text: str) -> str:
    """``text`` when it is a topic filter. Raises InputFault."""
    levels = text.split("/")
    wrong = (
        not text
        or len(text) > TOPIC_MAX_CHARS
        or "\0" in text
        or any("#" in level and level != "#" for level in levels)
        or any("+" in level and level != "+" for level in levels)
        or "#" in levels[:-1]
    )
    if wrong:
        raise InputFault(
            f"{text[:120]!r} is no topic filter: '+' stands for one whole level, '#' for all the"
            " rest, at the end"
        )
    return text


def check_topic(text: str) -> str:
    """``text`` when one can publish to it. Raises InputFault."""
    if not text or len(text) > TOPIC_MAX_CHARS or any(sign in text for sign in "+#\0"):
        raise InputFault(f"{text[:120]!r} is no topic to publish to: no '+', no '#', not empty")
    return text


def matches(pattern: str, topic: str) -> bool:
    """Whether a message on ``topic`` belongs to the filter ``pattern``."""
    if topic.startswith("$") and pattern[:1] in ("+", "#"):
        return False
    wanted, levels = pattern.split("/"), topic.split("/")
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i >= len(levels) or level not in ("+", levels[i]):
            return False
    return len(wanted) == len(levels)


def overlap(one: str, other: str) -> bool:
    """Whether some topic belongs to both filters."""
    left, right = one.split("/"), other.split("/")
    for i in range(max(len(left), len(right)) + 1):
        a = left[i] if i < len(left) else None
        b = right[i] if i < len(right) else None
        if "#" in (a, b):
            return True
        if a is None or b is None:
            return a is b
        if a != b and "+" not in (a, b):
            return False
    return True
