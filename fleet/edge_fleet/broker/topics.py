"""Topic names, filters and their matching (MQTT 5.0 §4.7 and §4.8). Pure."""

from edge_fleet.broker.errors import ProtocolError
from edge_fleet.broker.reasons import ReasonCode

# Nobody names things 200 levels deep; matching and storing a hostile topic of 65,535 slashes is
# bounded by it. Mosquitto has the same limit.
MAX_LEVELS = 200


def check_topic(topic: str) -> None:
    """Refuse what is no topic name: empty, wildcards, U+0000, too deep (§3.3.2.1, §4.7.3)."""
    if not topic or "+" in topic or "#" in topic or "\0" in topic:
        raise ProtocolError(
            ReasonCode.TOPIC_NAME_INVALID,
            f"{topic[:64]!r} is no topic name: it is empty or contains '+', '#' or U+0000",
        )
    if topic.count("/") >= MAX_LEVELS:
        raise ProtocolError(
            ReasonCode.TOPIC_NAME_INVALID, f"a topic of more than {MAX_LEVELS} levels"
        )


def is_filter(topic_filter: str) -> bool:
    """True for a valid filter, without the `$share/GROUP/` before it (§4.7.1, §4.7.3)."""
    if not topic_filter or "\0" in topic_filter or topic_filter.count("/") >= MAX_LEVELS:
        return False
    *leading, last = topic_filter.split("/")
    if last != "#":
        leading.append(last)
    return all(level == "+" or not ("+" in level or "#" in level) for level in leading)


def split_shared(topic_filter: str) -> tuple[str | None, str]:
    """The share name and the filter of `$share/NAME/FILTER`; None and the whole without one.

    A malformed one gives an empty filter, which `is_filter` refuses (§4.8.2).
    """
    if not topic_filter.startswith("$share/"):
        return None, topic_filter
    name, slash, rest = topic_filter[7:].partition("/")
    if not name or not slash or "+" in name or "#" in name:
        return name, ""
    return name, rest


def matches(topic_filter: str, topic: str) -> bool:
    """Whether `topic` is matched by `topic_filter`, both valid.

    >>> matches("sport/#", "sport"), matches("sport/+", "sport/"), matches("#", "$SYS/load")
    (True, True, False)
    """
    if topic[0] == "$" and topic_filter[0] in "+#":
        return False
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    for index, want in enumerate(wanted):
        if want == "#":
            return True
        if index == len(levels):
            return False
        if want not in {"+", levels[index]}:
            return False
    return len(wanted) == len(levels)


def covers(pattern: str, topic_filter: str) -> bool:
    """Whether every topic that `topic_filter` matches is matched by `pattern` too.

    A topic name is a filter, so this answers for a PUBLISH as for a SUBSCRIBE.

    >>> covers("a/#", "a/+/c"), covers("a/+", "a/#"), covers("#", "$SYS/#")
    (True, False, False)
    """
    if topic_filter[:1] == "$" and pattern[:1] in {"+", "#"}:
        return False
    allowed = pattern.split("/")
    asked = topic_filter.split("/")
    for index, level in enumerate(allowed):
        if level == "#":
            return True
        if index == len(asked) or asked[index] == "#":
            return False
        if level not in {"+", asked[index]}:
            return False
    return len(allowed) == len(asked)
