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


def overlap(one: str, other: str) -> bool:
    """Whether some topic belongs to both filters; topics that begin with $ are left aside."""
    levels, others = one.split("/"), other.split("/")
    if sorted((one, other)) == ["+", "/#"]:
        return False  # only the topic of no characters, which MQTT forbids, belongs to both
    for level, against in zip(levels, others, strict=False):
        if "#" in (level, against):
            return True
        if level != against and "+" not in (level, against):
            return False
    longer = max(levels, others, key=len)
    return len(levels) == len(others) or longer[min(len(levels), len(others)) :] == ["#"]


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
