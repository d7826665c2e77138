"""Retained messages (MQTT 5.0 §3.3.1.3): the last one of each topic, found by filter. Pure."""

from collections.abc import Iterator

from edge_fleet.broker.message import Message


class _Node:
    __slots__ = ("children", "message")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.message: Message | None = None


class RetainedStore:
    """A tree of topics, one level a step, bounded in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._root = _Node()
        self._messages: dict[str, Message] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> bool:
        """Keep `message`; an empty payload erases its topic. False when there is no room for it."""
        old = self._messages.get(message.topic)
        grown = self.size_bytes - (old.size_bytes if old else 0)
        if not message.payload:
            self.erase(message.topic)
            return True
        if grown + message.size_bytes > self._max_bytes:
            return False
        self.size_bytes = grown + message.size_bytes
        self._messages[message.topic] = message
        node = self._root
        for level in message.topic.split("/"):
            node = node.children.setdefault(level, _Node())
        node.message = message
        return True

    def erase(self, topic: str) -> bool:
        """Forget a topic; False when it had no message."""
        old = self._messages.pop(topic, None)
        if old is None:
            return False
        self.size_bytes -= old.size_bytes
        path = []
        node = self._root
        for level in topic.split("/"):
            path.append((node, level))
            node = node.children[level]
        node.message = None
        for parent, level in reversed(path):
            child = parent.children[level]
            if child.children or child.message:
                break
            del parent.children[level]
        return True

    def get(self, topic: str, now: float) -> Message | None:
        """The message of a topic that has not expired."""
        message = self._messages.get(topic)
        if message is not None and message.expired(now):
            self.erase(topic)
            return None
        return message

    def all(self, now: float) -> list[Message]:
        """Every message that has not expired."""
        return [message for message in self._messages.values() if not message.expired(now)]

    def matching(self, topic_filter: str, now: float) -> list[Message]:
        """The messages whose topics match, in the order of their first publication a level."""
        if "+" not in topic_filter and "#" not in topic_filter:
            message = self.get(topic_filter, now)
            return [] if message is None else [message]
        found = list(self._walk(topic_filter.split("/")))
        for message in found:
            if message.expired(now):
                self.erase(message.topic)
        return [message for message in found if not message.expired(now)]

    def _walk(self, levels: list[str]) -> Iterator[Message]:
        """Depth first, without recursion: a topic may be as deep as `topics.MAX_LEVELS`."""
        stack = [(self._root, 0)]
        while stack:
            node, depth = stack.pop()
            level = levels[depth] if depth < len(levels) else None
            if level == "#":
                if node.message:
                    yield node.message
                stack += [(child, depth) for child in _below(node, node is self._root)]
            elif level is None:
                if node.message:
                    yield node.message
            elif level == "+":
                stack += [(child, depth + 1) for child in _below(node, depth == 0)]
            elif child := node.children.get(level):
                stack.append((child, depth + 1))


def _below(node: _Node, top: bool) -> Iterator[_Node]:
    """The children in an order that the stack turns round; wildcards skip `$` topics (§4.7.2)."""
    for level in reversed(node.children):
        if not (top and level.startswith("$")):
            yield node.children[level]
