"""Who gets a message: subscriptions, shared subscriptions, no-local, overlaps. Pure.

Plans are kept by topic until a subscription changes: a fleet publishes on the same topics again and
again.
"""

from typing import NamedTuple

from edge_fleet.broker.message import GroupKey

_PLANS_KEPT = 10_000


class Subscription(NamedTuple):
    """The options of one filter of one session (MQTT 5.0 §3.8.3.1)."""

    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    identifier: int | None = None


class Copy(NamedTuple):
    """How one session gets a message, its overlapping subscriptions merged (§3.3.4)."""

    qos: int
    retain_as_published: bool
    subscription_ids: tuple[int, ...]


class Target(NamedTuple):
    """A session; `own` is its copy of what it published itself, None when no-local forbids it."""

    client_id: str
    copy: Copy
    own: Copy | None


class Group:
    """A shared subscription and whose turn it is."""

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        self.members: dict[str, Subscription] = {}
        self._turn = 0

    def in_turn(self) -> list[str]:
        """The members, beginning with the one whose turn it is; moves the turn on."""
        ids = list(self.members)
        self._turn = (self._turn + 1) % len(ids)
        return ids[self._turn :] + ids[: self._turn]


class Plan(NamedTuple):
    """All receivers of one topic."""

    targets: tuple[Target, ...]
    groups: tuple[Group, ...]


class _Node:
    __slots__ = ("children", "groups", "subscribers")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.subscribers: dict[str, Subscription] = {}
        self.groups: dict[str, Group] = {}

    @property
    def empty(self) -> bool:
        return not (self.children or self.subscribers or self.groups)


class Router:
    """A tree of filters, one level a step."""

    def __init__(self) -> None:
        self._root = _Node()
        self._plans: dict[str, Plan] = {}

    def subscribe(
        self, client_id: str, group: str | None, topic_filter: str, subscription: Subscription
    ) -> None:
        """Add a subscription, or replace the one of the same client and filter."""
        node = self._root
        for level in topic_filter.split("/"):
            node = node.children.setdefault(level, _Node())
        if group is None:
            node.subscribers[client_id] = subscription
        else:
            shared = node.groups.setdefault(group, Group(GroupKey(group, topic_filter)))
            shared.members[client_id] = subscription
        self._plans.clear()

    def unsubscribe(self, client_id: str, group: str | None, topic_filter: str) -> None:
        """Remove a subscription and the branches that it leaves empty."""
        path = self._path(topic_filter)
        if not path:
            return
        node = path[-1][1]
        if group is None:
            node.subscribers.pop(client_id, None)
        elif shared := node.groups.get(group):
            shared.members.pop(client_id, None)
            if not shared.members:
                del node.groups[group]
        for level, child, parent in reversed(path):
            if not child.empty:
                break
            del parent.children[level]
        self._plans.clear()

    def group(self, key: GroupKey) -> Group | None:
        """The shared subscription, while it has members."""
        path = self._path(key.filter)
        return path[-1][1].groups.get(key.name) if path else None

    def plan(self, topic: str) -> Plan:
        """Every session and group whose filters match."""
        plan = self._plans.get(topic)
        if plan is None:
            if len(self._plans) >= _PLANS_KEPT:
                self._plans.clear()
            plan = self._plans[topic] = self._plan(topic)
        return plan

    def _path(self, topic_filter: str) -> list[tuple[str, _Node, _Node]]:
        """Level, node and parent, from the top; empty when there is no such filter."""
        path = []
        node = self._root
        for level in topic_filter.split("/"):
            child = node.children.get(level)
            if child is None:
                return []
            path.append((level, child, node))
            node = child
        return path

    def _plan(self, topic: str) -> Plan:
        found: dict[str, list[Subscription]] = {}
        groups: list[Group] = []
        for node in self._matching(topic):
            for client_id, subscription in node.subscribers.items():
                found.setdefault(client_id, []).append(subscription)
            groups += node.groups.values()
        targets = tuple(_target(client_id, several) for client_id, several in found.items())
        return Plan(targets, tuple(groups))

    def _matching(self, topic: str) -> list[_Node]:
        """The nodes at which matching filters end, by the rules of §4.7.1 and §4.7.2."""
        ends: list[_Node] = []
        nodes = [self._root]
        wildcards = topic[0] != "$"
        for level in topic.split("/"):
            following: list[_Node] = []
            for node in nodes:
                if child := node.children.get(level):
                    following.append(child)
                if wildcards:
                    if child := node.children.get("+"):
                        following.append(child)
                    if child := node.children.get("#"):
                        ends.append(child)
            nodes, wildcards = following, True
        for node in nodes:
            ends.append(node)
            if child := node.children.get("#"):
                ends.append(child)
        return ends


def _target(client_id: str, several: list[Subscription]) -> Target:
    foreign = [subscription for subscription in several if not subscription.no_local]
    return Target(client_id, _merge(several), _merge(foreign) if foreign else None)


def _merge(several: list[Subscription]) -> Copy:
    """One copy with the highest QoS and all identifiers (§3.3.4)."""
    return Copy(
        max(subscription.qos for subscription in several),
        any(subscription.retain_as_published for subscription in several),
        tuple(sub.identifier for sub in several if sub.identifier is not None),
    )
