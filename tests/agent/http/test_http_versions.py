"""Versions beside the one that answers are asked by path, described, and gone when they go."""

from __future__ import annotations

import json
import re

import pytest

from edge_agent import Model
from edge_contract import bundle as bundles

NAMES = ("temp", "hum", "rpm", "volt")
ROW = [0.5, -1.0, 2.0, 0.0]


def infer(rows: list[list[float | None]], datatype: str = "FP32") -> bytes:
    """A request of rows, flat."""
    data = [value for row in rows for value in row]
    shape = [len(rows), len(rows[0])]
    tensor = {"name": "X", "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


def test_each_loaded_version_answers_by_its_path(client, seats, tiny_bundle) -> None:
    newer = Model.from_bundle(bundles.read(tiny_bundle(version="2.0")))
    seats["pump"].swap(newer, keep=True)
    for path, version in (("", "2.0"), ("/versions/2.0", "2.0"), ("/versions/1.0", "1.0")):
        for _ in range(3):  # the first in a thread, later ones in the loop
            answer = client.ask("POST", f"/v2/models/pump{path}/infer", infer([ROW]))
            assert json.loads(answer.body)["model_version"] == version
        assert client.ask("GET", f"/v2/models/pump{path}/ready").status == 200
        about = json.loads(client.ask("GET", f"/v2/models/pump{path}").body)
        assert about["versions"] == ["2.0", "1.0"]
    index = json.loads(client.ask("POST", "/v2/repository/index").body)
    assert {m["version"] for m in index if m["name"] == "pump"} == {"1.0", "2.0"}
    for path in ("/infer", "/ready", ""):
        method = "POST" if path == "/infer" else "GET"
        none = client.ask(method, f"/v2/models/pump/versions/3.0{path}", infer([ROW]))
        assert none.status == 404 and b"3.0" in none.body


def test_a_version_that_was_let_go_is_not_found_any_more(client, seats, tiny_bundle) -> None:
    path = "/v2/models/pump/versions/1.0/infer"
    assert client.ask("POST", path, infer([ROW])).status == 200
    seats["pump"].swap(Model.from_bundle(bundles.read(tiny_bundle(version="2.0"))))
    assert client.ask("POST", path, infer([ROW])).status == 404


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16"])
def test_a_row_by_itself_is_answered_as_it_is_among_others(datatype, client, seats) -> None:
    rows = [ROW, [1.5, 0.25, -3.0, 8.0], [0.0, 0.0, 0.0, 0.0]]
    path = "/v2/models/pump/infer"
    together = json.loads(client.ask("POST", path, infer(rows, datatype)).body)["outputs"]
    for at, row in enumerate(rows):
        alone = json.loads(client.ask("POST", path, infer([row], datatype)).body)["outputs"]
        for one, many in zip(alone, together, strict=True):
            width = len(one["data"])
            assert one["shape"] == [1, *many["shape"][1:]]
            right = many["data"][at * width : (at + 1) * width]
            # The runtime computes a batch in another order: not the same to the last bit.
            assert one["data"] == pytest.approx(right, abs=1e-5)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(
    ("wrong", "said"), [(None, "'hum'"), (1e39, "'hum'|infinite"), (1e400, "")]
)
def test_a_number_that_does_not_fit_is_refused_with_a_reason(rows, wrong, said, client) -> None:
    body = infer([[0.5, wrong, 2.0, 0.0], *[ROW] * (rows - 1)]).replace(b"Infinity", b"1e400")
    for _ in range(2):
        answer = client.ask("POST", "/v2/models/pump/infer", body)
        assert answer.status == 400 and re.search(said, json.loads(answer.body)["error"])


def test_tensors_of_one_call_are_not_those_of_the_next(seats) -> None:
    model = seats["pump"].model
    first = model.infer(ROW)
    kept = {name: array.copy() for name, array in first.items()}
    model.infer([-5.0, 4.0, 0.5, 1.0])
    assert all((first[name] == kept[name]).all() for name in kept)
    assert (first["probabilities"] != model.infer([-5.0, 4.0, 0.5, 1.0])["probabilities"]).any()


@pytest.mark.parametrize("more", [{}, {"parameters": {}}, {"outputs": None, "id": None}])
@pytest.mark.parametrize("tensor", [{}, {"parameters": {"content_type": "np"}}])
def test_one_row_in_any_dress_is_the_same_request(more, tensor, client) -> None:
    request = json.loads(infer([ROW]))
    plain = client.ask("POST", "/v2/models/pump/infer", json.dumps(request).encode())
    dressed = {"inputs": [request["inputs"][0] | tensor], **more}
    for _ in range(2):
        answer = client.ask("POST", "/v2/models/pump/infer", json.dumps(dressed).encode())
        assert (answer.status, answer.body) == (200, plain.body)


@pytest.mark.parametrize(
    "wrong",
    [{"name": "Y"}, {"shape": [1, 3]}, {"shape": [2, 4]}, {"data": [1, 2, 3]}, {"data": [1] * 5},
     {"datatype": "INT64"}, {"datatype": "FP31"}, {"data": [1, 2, "3", 4]},
     {"data": [1, 2, True, 4]}],
)  # fmt: skip
def test_one_row_that_does_not_fit_is_refused(wrong, client) -> None:
    request = json.loads(infer([ROW]))
    request["inputs"][0] |= wrong
    for _ in range(2):
        answer = client.ask("POST", "/v2/models/pump/infer", json.dumps(request).encode())
        assert answer.status == 400 and json.loads(answer.body)["error"]
