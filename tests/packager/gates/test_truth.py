"""The column with the true answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_contract.errors import InputFault
from edge_pack import tables
from edge_pack.gates import truth


def test_text_answers_for_a_model_of_numbers_come_with_its_labels(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,kind\n1,fails\n2,runs\n")
    with pytest.raises(InputFault, match="row 1: 'fails' is not a number") as caught:
        truth.read(tables.read(path), "kind", "classification", (0, 1))
    assert "the model's labels are 0, 1" in caught.value.what
