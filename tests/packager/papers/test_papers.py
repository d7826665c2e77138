"""The card and the bill of materials say what the manifest says, validate, and repeat."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from edge_contract import manifest as manifests
from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault
from edge_contract.manifest import Provenance, Tracked
from edge_pack.cli import app
from edge_pack.papers.bom import bom
from edge_pack.papers.card import card


def _with(bundle: Bundle, **changes: Any) -> Bundle:
    manifest_bytes = manifests.encode(_set(bundle.manifest, **changes))
    return replace(bundle, manifest=manifests.decode(manifest_bytes), manifest_bytes=manifest_bytes)


def _set(struct: Any, **changes: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(struct, **changes)


FULL = Provenance(
    source_sha256="1" * 64, source_type="skops", data_sha256="2" * 64, data_rows=7,
    libraries={"torch": "2.13.0+cpu", "scikit_learn": "1.9"}, commit="c" * 40, dirty=True,
    run_id="run-9", python="3.12.1", command=("build", "m.skops", "--target", "a b"),
    tracked=(Tracked(role="model", md5="3" * 32, record="dvc.lock", record_sha256="4" * 64,
                     stage="train"),),
)  # fmt: skip


@pytest.fixture(params=["iris", "forced", "tensors", "full"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    if request.param == "full":
        return _with(request.getfixturevalue("iris").bundle, provenance=FULL)
    found: Bundle = request.getfixturevalue(request.param).bundle
    return found


def test_the_bill_validates_strictly_and_repeats(bundle: Bundle) -> None:
    data = bom(bundle)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
    assert bom(bundle) == data
    document = json.loads(data)
    assert "timestamp" not in data.decode()
    refs = [part["bom-ref"] for part in document["components"]]
    assert len(set(refs)) == len(refs)
    assert document["dependencies"][0]["dependsOn"] == refs


def test_the_strict_validator_would_object(iris: Any) -> None:
    document = json.loads(bom(iris.bundle))
    document["metadata"]["component"]["modelCard"]["unknown"] = 1
    text = json.dumps(document)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is not None


def test_another_bundle_has_another_serial_number(iris: Any) -> None:
    one = json.loads(bom(iris.bundle))["serialNumber"]
    assert json.loads(bom(_with(iris.bundle, version="2.0")))["serialNumber"] != one


def test_the_bill_holds_the_manifests_facts(iris: Any) -> None:
    bundle = _with(iris.bundle, provenance=FULL)
    manifest = bundle.manifest
    document = json.loads(bom(bundle))
    model = document["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert (model["name"], model["version"]) == (manifest.name, manifest.version)
    assert model["hashes"] == [{"alg": "SHA-256", "content": bundle.digest}]
    assert model["licenses"] == [{"license": {"id": "MIT"}}]
    assert model["pedigree"]["commits"] == [{"uid": "c" * 40}]
    ancestor = model["pedigree"]["ancestors"][0]
    assert [h["content"] for h in ancestor["hashes"]] == ["1" * 64, "3" * 32]
    hashes = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    assert hashes == {file.name: file.raw_sha256 for file in manifest.files}
    figures = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert [(f["type"], float(f["value"]), f.get("slice", "")) for f in figures] == [
        (m.name, m.bundle, m.slice) for m in manifest.metrics
    ]
    assert any("confidenceInterval" in figure for figure in figures)
    purls = {part.get("purl") for part in document["components"]}
    assert {"pkg:pypi/torch@2.13.0%2Bcpu", "pkg:pypi/scikit-learn@1.9"} <= purls
    data = next(part for part in document["components"] if part["type"] == "data")
    assert data["hashes"][0]["content"] == "2" * 64
    assert model["modelCard"]["considerations"]["useCases"] == [manifest.intended_use]


def test_an_unknown_licence_is_given_as_text(iris: Any) -> None:
    bundle = _with(iris.bundle, licence="Ours: ask <us>")
    document = json.loads(bom(bundle))
    assert document["metadata"]["component"]["licenses"] == [
        {"license": {"name": "Ours: ask <us>"}}
    ]
    front = yaml.safe_load(card(bundle).split("---")[1])
    assert (front["license"], front["license_name"]) == ("other", "Ours: ask <us>")


def test_the_card_holds_the_manifests_facts(bundle: Bundle) -> None:
    text, manifest = card(bundle), bundle.manifest
    assert card(bundle) == text
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "onnx" and "edge-pack" in front["tags"]
    assert f"# {manifest.name} {manifest.version}" in text and bundle.digest in text
    for file in manifest.files:
        assert file.raw_sha256 in text
    for metric in manifest.metrics:
        assert f"{metric.bundle:.6g}" in text
    assert f"Rows compared: {manifest.parity.rows:,}" in text
    assert manifest.provenance.source_sha256 in text
    for name, version in manifest.provenance.libraries.items():
        assert f"{name.replace('_', chr(92) + '_')} {version}" in text
    for heading in (
        "Model details", "Uses", "Bias, risks and limitations", "How to get started",
        "Reference data", "Evaluation", "Parity with the original model", "Compression",
        "Technical specifications", "Provenance", "How to verify",
    ):  # fmt: skip
        assert f"\n## {heading}\n" in text


def test_a_forced_bundles_card_says_so_first(forced: Any, iris: Any) -> None:
    text = card(forced.bundle)
    assert text.index("**Forced.**") < text.index("## Model details") and "r2" in text
    assert "**Forced.**" not in card(iris.bundle)


def test_provenance_in_the_card(iris: Any) -> None:
    text = card(_with(iris.bundle, provenance=FULL))
    assert f"Commit: {'c' * 40}, with changes" in text
    assert "edge-pack build m.skops --target 'a b'" in text
    assert "DVC, model: MD5 " + "3" * 32 in text and "stage train" in text


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


def test_names_from_the_data_are_no_markup_in_the_card(iris: Any) -> None:
    text = card(iris.bundle)
    parser = _Tags()
    parser.feed(text)
    assert parser.tags == []
    hostile = [line for line in text.splitlines() if "alert" in line and line.startswith("| ")]
    assert len(hostile) == 1
    assert len(re.findall(r"(?<!\\)\|", hostile[0])) == 7  # six cells, and no more


def _call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_papers_are_written_beside_a_bundle_and_again_anywhere(iris: Any, tmp_path: Path) -> None:
    beside = {name: (iris.path.parent / f"model.{name}").read_bytes()
              for name in ("card.md", "bom.json")}  # fmt: skip
    assert beside == {"card.md": card(iris.bundle).encode(), "bom.json": bom(iris.bundle)}
    out = tmp_path / "new" / "folder"
    said = _call("papers", iris.path, "-o", out, "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert found["digest"] == iris.bundle.digest
    assert Path(found["card"]).read_bytes() == beside["card.md"]
    assert Path(found["bom"]).read_bytes() == beside["bom.json"]
    assert "Example" in _call("papers", "--help").output


def test_papers_of_what_is_no_bundle_are_an_input_fault(tmp_path: Path) -> None:
    junk = tmp_path / "junk.edgepack"
    junk.write_bytes(b"junk")
    for command in ("papers", "report"):
        assert isinstance(_call(command, junk).exception, InputFault)
        assert isinstance(_call(command, tmp_path / "absent").exception, InputFault)
    assert [path.name for path in tmp_path.iterdir()] == ["junk.edgepack"]


def test_verify_says_what_a_signature_vouches_for(make: Any, iris: Any, tmp_path: Path) -> None:
    assert _call("keys", "init", tmp_path / "keys").exit_code == 0
    frame = pd.DataFrame({"a": np.arange(40.0)})
    truth = (frame.a > 20).astype(int).rename("y")
    model = LogisticRegression().fit(frame, truth)
    case = make(model, frame.join(truth), "y", keys=tmp_path / "keys", measure=False,
                commit="c" * 40)  # fmt: skip
    said = _call("verify", case.path, "--keys", tmp_path / "keys")
    assert said.exit_code == 0, said.output
    source = case.bundle.manifest.provenance.source_sha256
    assert f"vouched for: model {source[:12]}..., data " in said.stdout
    assert "commit cccccccccccc, by edge-pack" in said.stdout
    assert "vouched for" not in _call("verify", iris.path).stdout
