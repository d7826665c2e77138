"""JSON lines: a request a line in, an answer a line out, in order, each flushed.

Guards: every line gets exactly one line back, whatever it holds; a line that is too long is
skipped, never held in memory; the answers are those of MQTT and HTTP, to the letter.

A request is ``{"feature": value, ...}``, ``{"rows": [...]}`` or ``{"tensors": {...}}``. An empty
line is answered too: who waits for an answer to each line is never left waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from edge_agent.doors import plain
from edge_agent.model import Model
from edge_contract import messages
from edge_contract.errors import EdgeError, InputFault
from edge_contract.messages import REQUEST_MAX_BYTES, Answer, Problem


class Tally(NamedTuple):
    """Lines answered with predictions, and with an error."""

    answered: int
    refused: int


def serve(model: Model, source: BinaryIO, target: BinaryIO) -> Tally:
    """Answer the lines of ``source`` until its end. Raises what writing raises."""
    answered = refused = 0
    for line in _lines(source):
        answer = respond(model, line)
        failed = isinstance(answer.error, Problem)
        answered, refused = answered + (not failed), refused + failed
        target.write(messages.encode(answer) + b"\n")
        target.flush()
    return Tally(answered, refused)


def respond(model: Model, line: bytes | None) -> Answer:
    """The answer to one line; None: one that was too long."""
    name = model.manifest.name
    try:
        if line is None:
            raise InputFault(f"a line of over {REQUEST_MAX_BYTES} bytes")
        found: Any = model.predict(plain.rows_of(messages.decode_request(line)))
        return plain.answer_of(name, model.manifest.version, found)
    except EdgeError as error:
        return Answer(model=name, error=Problem(what=error.what, advice=error.advice))


def _lines(source: BinaryIO) -> Iterator[bytes | None]:
    """Lines without their ends, None for one over ``REQUEST_MAX_BYTES``."""
    read: Callable[[int], bytes] = source.readline
    bound = REQUEST_MAX_BYTES + 2
    while line := read(bound):
        if len(line) == bound and not line.endswith(b"\n"):
            while (rest := read(bound)) and not rest.endswith(b"\n"):
                pass
            yield None
            continue
        yield line.rstrip(b"\r\n")
