"""An order from a file: TOML, or YAML where its name says so. Pure.

Guards: a file is bounded before it is read: bytes, depth, no alias (a few lines of those can stand
for gigabytes) and no key twice; each fault names the file and the place in it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import msgspec
import yaml

from edge_contract.errors import InputFault
from edge_contract.typed import convert
from edge_fleet.rollouts.order import ORDER_MAX_BYTES, File, given, with_limits

DEPTH_MAX = 8
SUFFIXES = (".yaml", ".yml")


def read(name: str, data: bytes) -> dict[str, Any]:
    """What the file ``name`` orders, by the names of ``Order``. Raises InputFault."""
    if len(data) > ORDER_MAX_BYTES:
        raise InputFault(f"{name}: an order of {len(data)} bytes, at most {ORDER_MAX_BYTES}")
    is_yaml = name.lower().endswith(SUFFIXES)
    try:
        text = data.decode()
        said = _yaml(text) if is_yaml else tomllib.loads(text)
        found: File = convert(said, File)
    except UnicodeDecodeError as error:
        raise InputFault(f"{name} is no text in UTF-8: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputFault(f"{name}: the order is not valid TOML: {error}") from error
    except yaml.YAMLError as error:
        raise InputFault(f"{name}: the order is not valid YAML: {_said(error)}") from error
    except msgspec.ValidationError as error:
        advice = "Put the value in quotes." if is_yaml and "Expected `str`" in str(error) else ""
        raise InputFault(f"{name}: the order is not valid: {error}", advice=advice) from error
    return {**given(found), "gates": with_limits(found.gates, found.gate)}


def _yaml(text: str) -> Any:
    loader = _Bounded(text)
    try:
        return loader.get_single_data() or {}
    finally:
        loader.dispose()


class _Bounded(yaml.SafeLoader):
    """Plain values only, without what makes a small file a large one."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One value; see the module's docstring."""
        peek: Callable[[], yaml.Event] = self.peek_event
        mark: Any = peek().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an order holds no aliases", mark)
        self._depth += 1
        if self._depth > DEPTH_MAX:
            said = f"more than {DEPTH_MAX} levels within each other"
            raise yaml.composer.ComposerError(None, None, said, mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping in which each key stands once."""
        keys: set[str] = set()
        for key, _ in node.value:
            plain = isinstance(key, yaml.ScalarNode)
            if not plain or key.value in keys:
                said = f"{key.value[:40]!r} stands twice" if plain else "a key is no plain text"
                raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
            keys.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def _said(error: yaml.YAMLError) -> str:
    """In one line, with the place counted from 1."""
    mark = getattr(error, "problem_mark", None)
    what = str(getattr(error, "problem", None) or error).splitlines()[0][:200]
    return f"{what}, at line {mark.line + 1}, column {mark.column + 1}" if mark else what
