"""The published schemas are the types', and what we write validates against them."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema
import pytest

from edge_contract import golden, messages, profile, schemas, wire
from edge_contract.golden import Golden, Tolerance
from edge_contract.profile import Monitor, Profile

DIGEST = "0" * 64
HARDWARE = messages.Hardware(
    machine="aarch64", cpus=4, ram_bytes=2**30, system="Linux", python="3.11", onnxruntime="1.20"
)
EXAMPLES = [
    messages.Status(online=True, boot=3, agent="0.1.0"),
    messages.Desired(revision=2, models={"pump": "candidate"}),
    messages.Event(boot=1, seq=0, at_ms=5, kind="committed", model="pump", version="1.0"),
    messages.Pointer(
        fleet="home",
        channel="stable",
        models={"pump": messages.Track(stable=messages.release("pump", "1.0", DIGEST))},
    ),
    messages.Reported(
        boot=1,
        at_ms=5,
        agent="0.1.0",
        hardware=HARDWARE,
        models={"pump": messages.ModelReport(phase="committed", active="1.0", digest=DIGEST)},
    ),
    messages.Answer(
        model="pump",
        version="1.0",
        predictions=[messages.Outcome(label="bad", probabilities={"bad": 0.9, "good": 0.1})],
    ),
    messages.Answer(model="pump", error=messages.Problem(what="no such model")),
    Profile(
        rows=3,
        monitors=(Monitor(name="a", kind="lattice", edges=(0.0,), counts=(3, 0, 0, 0, 0, 0)),),
    ),
    Golden(
        inputs=(golden.Array(name="x", dtype="float32", shape=(1,), data=bytes(4)),),
        outputs=(),
        tolerance={"default": Tolerance(absolute=0.0, relative=0.0)},
    ),
]


@pytest.mark.parametrize(("name", "text"), schemas.render().items())
def test_the_published_schema_is_the_types(name: str, text: str) -> None:
    published = resources.files(schemas).joinpath(name).read_text()
    assert published == text, "run: python -m edge_contract.schemas"
    jsonschema.Draft202012Validator.check_schema(json.loads(text))


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_what_we_write_validates(message: object) -> None:
    schema = schemas.schema_of(type(message))  # type: ignore[arg-type]
    document = json.loads(wire.encode_json(message))  # type: ignore[arg-type]
    jsonschema.Draft202012Validator(schema).validate(document)
    document["schema"] = "one"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(document)


def test_profile_and_golden_round_trip() -> None:
    described = next(e for e in EXAMPLES if isinstance(e, Profile))
    assert profile.decode(profile.encode(described)) == described
    samples = next(e for e in EXAMPLES if isinstance(e, Golden))
    assert golden.decode(golden.encode(samples)) == samples


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_every_payload_says_its_schema_version(message: object) -> None:
    assert json.loads(wire.encode_json(message))["schema"] == 1  # type: ignore[arg-type]
