"""Files of rows: the same cells whoever parses them, all rows looked at, a bounded part kept."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract.errors import InputFault
from edge_pack import tables
from edge_pack.tabular import npz_, sampling
from edge_pack.tabular.csv_ import Csv
from edge_pack.tabular.facts import Gathering
from edge_pack.tabular.feed import open_feed
from edge_pack.tabular.grid import Grid
from edge_pack.tabular.sampling import Sampler

_CELLS = st.one_of(
    st.sampled_from(["", "1", "1.5", "-2e3", "nan", "NA", " 7 ", "+3", "inf", "1_000", "0x10",
                     "true", "été", "a b", "\x0b", "\u2028", "1e400", "5e-324", "\t", "'"]),
    st.text(st.characters(blacklist_characters="\0\r", blacklist_categories=("Cs",)), max_size=4),
    st.floats().map(repr),
)  # fmt: skip
_ENDS = st.sampled_from(["\n", "\r\n"])


def _as_bytes(rows: list[list[str]], end: str, last: bool) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end).writerows(rows)
    text = out.getvalue()
    return (text if last else text.removesuffix(end)).encode()


def _read(path: Path, **options: Any) -> tuple[list[str], list[list[Any]], str]:
    with open_feed(path) as feed:
        file = Csv(path, feed, **options)
        pieces = [[sampling.as_array(c).tolist() for c in piece] for piece in file.pieces()]
        columns = [[cell for p in pieces for cell in p[i]] for i in range(len(file.header))]
        return file.header, columns, feed.digest()


@given(
    st.integers(1, 3).flatmap(
        lambda width: st.lists(
            st.lists(_CELLS, min_size=width, max_size=width), min_size=1, max_size=12
        )
    ),
    _ENDS,
    st.booleans(),
    st.tuples(st.sampled_from([b"", b"\xef\xbb\xbf"]), st.integers(1, 40)),
)
@settings(max_examples=300)
def test_every_parser_reads_the_cells_of_the_csv_module(
    tmp_path_factory: Any, rows: list[list[str]], end: str, last: bool, how: tuple[bytes, int]
) -> None:
    bom, block = how
    header = [f"c{i}" for i in range(len(rows[0]))]
    data = bom + _as_bytes([header, *rows], end, last)
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    path.write_bytes(data)
    text = data.removeprefix(bom).decode()
    expected = [r for r in csv.reader(io.StringIO(text, newline=""), strict=True) if r][1:]
    columns = [list(column) for column in zip(*expected, strict=True)] or [[] for _ in header]
    for fast in (False, True):
        for size in (block, 4_000_000):
            found = _read(path, fast=fast, block_bytes=size)
            assert found == (header, columns, hashlib.sha256(data).hexdigest()), (fast, size)


@given(st.binary(max_size=60), st.integers(1, 30))
@settings(max_examples=300)
def test_any_bytes_are_read_alike_or_refused_alike(
    tmp_path_factory: Any, junk: bytes, block: int
) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    path.write_bytes(b"a,b\n1,2\n" + junk)
    found = []
    for fast, size in [(False, 4_000_000), (False, block), (True, block), (True, 4_000_000)]:
        try:
            found.append(repr(_read(path, fast=fast, block_bytes=size)))
        except InputFault as fault:
            found.append(str(fault))
    assert len(set(found)) == 1


@given(
    st.lists(
        st.one_of(
            st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), st.just(math.nan), st.just(math.inf)
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 20),
)
def test_facts_are_the_same_in_any_pieces_and_any_form(values: list[float], step: int) -> None:
    texts = ["" if math.isnan(value) else repr(value) for value in values]
    as_texts = np.array(texts, dtype=object)
    found = []
    for cells in (np.array(values), as_texts, pa.array(texts)):
        gathering = Gathering()
        for start in range(0, len(values), step):
            gathering.add(cells[start : start + step])
        found.append(gathering.facts())
    finite = [value for value in values if math.isfinite(value)]
    first = next((i for i, value in enumerate(values, 1) if math.isnan(value)), None)
    for facts in found:
        assert facts.minimum == min(finite, default=None)
        assert facts.maximum == max(finite, default=None)
        assert facts.missing == facts.empty == sum(map(math.isnan, values))
        assert facts.first_missing == facts.first_empty == first
        assert facts.stray is None and facts.rows == len(values)
        assert facts.resolution == found[0].resolution
        assert (facts.infinite is None) == (math.inf not in values)
    assert found[1].texts == found[2].texts == frozenset(texts) - {""}


@given(
    st.lists(st.integers(-(10**7), 10**7), min_size=1, max_size=40),
    st.integers(0, 6),
    st.integers(1, 9),
    st.integers(1, 7),
)
def test_a_grid_is_the_greatest_common_step(
    counts: list[int], decimals: int, step: int, piece: int
) -> None:
    values = np.array([float(Fraction(c * step, 10**decimals)) for c in counts])
    grid = Grid()
    for start in range(0, len(values), piece):
        grid.add(values[start : start + piece])
    distinct = sorted({Fraction(c * step, 10**decimals) for c in counts})
    gaps = [b - a for a, b in pairwise(distinct)]
    expected = None
    if gaps:
        top = math.gcd(*(int(gap * 10**decimals) for gap in gaps))
        expected = float(Fraction(top, 10**decimals))
    assert grid.step == expected


def test_a_grid_of_noise_or_of_huge_numbers_is_none() -> None:
    for values in ([0.1, 1 / 3], [1.0, 1e300], [2.0], []):
        grid = Grid()
        grid.add(np.array(values))
        assert grid.step is None


@given(st.integers(1, 500), st.integers(1, 60), st.integers(2, 64))
def test_what_is_kept_is_blocks_in_order_and_the_ends(rows: int, step: int, most: int) -> None:
    values = np.arange(rows, dtype=np.float64)
    sampler = Sampler(1, rows_max=most)
    for start in range(0, rows, step):
        piece = values[start : start + step]
        sampler.add([piece], [(0, "greatest", len(piece) - 1)])
    whole = sampler.whole
    (column,), positions = sampler.columns()
    assert column.tolist() == positions.tolist() == sorted(set(positions.tolist()))
    assert whole == (rows <= most)
    assert positions[-1] == rows - 1
    if not whole:
        assert most / 2 - most / 32 - 1 <= len(positions) <= most + 1


def _csv(path: Path, rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "t": np.arange(rows),
            "level": np.round(50 + np.cumsum(rng.normal(0, 0.1, rows)), 2),
            "site": rng.choice(["lyon", "turin"], rows),
            "noise": rng.normal(size=rows),
        }
    )
    frame.loc[rows - 7, "site"] = "graz"
    frame.loc[rows - 5, "level"] = np.nan
    frame.loc[rows - 3, "level"] = -40.125
    frame.to_csv(path, index=False)
    return frame


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.csv.gz"])
def test_a_large_file_is_known_whole_and_kept_in_part(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    frame = _csv(path, 30_000)
    if name.endswith("parquet"):
        frame.to_parquet(path, row_group_size=4096)
    table = tables.read(path, rows_max=1000)
    assert 450 <= table.rows <= 1020 and table.total_rows == 30_000 and table.part
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    level = table.facts["level"]
    assert (level.minimum, level.maximum) == (frame.level.min(), frame.level.max())
    assert (level.resolution, level.missing, level.first_missing) == (0.005, 1, 29_996)
    assert table.facts["site"].texts == {"lyon", "turin", "graz"}
    assert table.facts["noise"].resolution is None
    # The kept rows are the file's, in order, with the ends of the ranges among them.
    assert table.positions is not None
    kept = frame.iloc[table.positions]
    np.testing.assert_array_equal(table.numbers("level"), kept.level.to_numpy())
    assert table.texts("site").tolist() == kept.site.tolist()
    assert np.nanmin(table.numbers("level")) == -40.125 and np.isnan(table.numbers("level")).any()
    assert (np.diff(table.positions) == 1).mean() > 0.9
    again = tables.read(path, rows_max=1000)
    assert again.positions is not None and (again.positions == table.positions).all()


def test_a_stray_word_in_a_row_that_is_not_kept_is_found(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [f"{i},{i}" for i in range(1, 5001)]
    lines[4321] = "4322,broken"
    path.write_text("a,b\n" + "\n".join(lines) + "\n")
    table = tables.read(path, rows_max=100)
    assert not table.is_numeric("b") and table.is_numeric("a")
    with pytest.raises(InputFault, match="column 'b', row 4322: 'broken' is not a number"):
        table.numbers("b")


def test_pages_give_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv"
    frame = _csv(path, 20_000)
    assert [page.rows for page in tables.pages(path)] == [20_000]
    monkeypatch.setattr(sampling, "CELLS_MAX", 4000)
    monkeypatch.setattr(Sampler.__init__, "__kwdefaults__", {"rows_max": 500, "cells_max": 4000})
    found = list(tables.pages(path))
    assert len(found) > 1
    level = np.concatenate([page.numbers("level") for page in found])
    np.testing.assert_array_equal(level, frame.level.to_numpy())
    assert [page.row_number(0) for page in found][:2] == [1, 8193]


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (b"a,b\n1,2\n\xe9,3\n", "not UTF-8 text: byte 8 is 0xe9"),
        (b"a,b\n1,\xc3", "not UTF-8 text: byte 6 is 0xc3"),
        ("a,b\n1,2\n".encode("utf-16"), "not "),
        (b"a,b\n1,\x00\n", "not text: byte 6 is 0x00"),
        (b"a,b\n1,2\n" + b"x" * 200_000 + b",1\n", "field larger than field limit"),
        (b'a,b\n1,"2\n', "not readable CSV"),
        (b'a,b\n1,"2"x\n', "not readable CSV"),
        (b"a,b\n1,2,3\n", "row 1 has 3 cells, the header has 2"),
        (b"a,b\n", "has no rows"),
        (b"a,b", "has no rows"),
        (b"\xef\xbb\xbf", "is empty"),
        (b" \r\n\n", "is empty"),
        (b"a,b,a\n1,2,3\n", "'a' stands twice"),
    ],
)
def test_a_csv_that_is_none_is_refused_by_every_parser(
    data: bytes, finding: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(data)
    with pytest.raises(InputFault, match=finding):
        tables.read(path)
    if b"a,b,a" not in data and finding != "has no rows":
        for size in (3, 4_000_000):
            with pytest.raises(InputFault, match=finding):
                _read(path, fast=True, block_bytes=size)


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"a,b\n1,")
        for _ in range(40):
            file.write(b"7" * 1024**2)
    with pytest.raises(InputFault, match=r"a line of more than|field larger"):
        tables.read(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputFault, match=r"cannot read|a line of|field larger"):
        tables.read(path)


_PEAK = """
import resource, sys
from pathlib import Path
from edge_pack import tables
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
tables.read(Path(sys.argv[1]), rows_max=2000)
before = peak()
table = tables.read(Path(sys.argv[2]), rows_max=2000)
print(table.total_rows, peak() - before)
"""


@pytest.mark.parametrize("quoted", [False, True])
def test_memory_does_not_grow_with_the_file(quoted: bool, tmp_path: Path) -> None:
    """A child reads 4 MB, then 30 MB: its peak rises by less than a third of the difference."""
    cell = '"%d,5"' if quoted else "%d.5"
    body = "".join(f"{i},{cell % (i % 977)},{i * 7919 % 104729}\n" for i in range(100_000))
    paths = []
    for name, times in (("small", 2), ("large", 15)):
        path = tmp_path / f"{name}.csv"
        with path.open("w") as file:
            file.write("a,b,c\n")
            for _ in range(times):
                file.write(body)
        paths.append(str(path))
    ran = subprocess.run(
        [sys.executable, "-c", _PEAK, *paths], capture_output=True, text=True, check=True
    )
    rows, grown_mb = ran.stdout.split()
    assert int(rows) == 1_500_000
    assert float(grown_mb) < 9, ran.stdout


def test_quoted_newlines_and_names_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbf"a, of it","b\nc"\r\n"1\n2",x\r\n\r\n3,"y ""z"""\r\n')
    table = tables.read(path)
    assert list(table.columns) == ["a, of it", "b\nc"]
    assert table.texts("b\nc").tolist() == ["x", 'y "z"']
    assert table.texts("a, of it").tolist() == ["1\n2", "3"]


def test_ten_thousand_columns(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    header = ",".join(f"c{i}" for i in range(10_000))
    row = ",".join(str(i) for i in range(10_000))
    path.write_text("\n".join([header] + [row] * 60) + "\n")
    table = tables.read(path)
    assert (table.rows, len(table.columns), table.part) == (60, 10_000, False)
    assert table.numbers("c9999").tolist() == [9999.0] * 60


def test_parquet_types_come_as_before(tmp_path: Path) -> None:
    big = 2**60 + 1
    table = pa.table(
        {
            "i": pa.array([1, None, big], pa.int64()),
            "u": pa.array([2**63, 1, 0], pa.uint64()),
            "b": pa.array([True, None, False]),
            "h": pa.array([0.5, None, 1.5], pa.float16()),
            "d": pa.array([None, 1, 2], pa.decimal128(10, 2)),
            "ns": pa.array([1_500_000_001, None, 0], pa.timestamp("ns")),
            "day": pa.array([1, 2, None], pa.date32()),
            "s": pa.array(["x", None, ""]),
            "cat": pa.array(["p", "q", None]).dictionary_encode(),
            "n": pa.nulls(3),
        }
    )
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(table, path)
    found = tables.read(path)
    nan = math.nan
    for name, expected in {
        "i": [1.0, nan, float(big)], "u": [float(2**63), 1.0, 0.0], "b": [1.0, nan, 0.0],
        "h": [0.5, nan, 1.5], "d": [nan, 1.0, 2.0], "ns": [1.5, nan, 0.0],
        "day": [86400.0, 172800.0, nan], "n": [nan] * 3,
    }.items():  # fmt: skip
        np.testing.assert_array_equal(found.columns[name], np.array(expected), name)
    assert found.columns["s"].tolist() == ["x", None, ""]
    assert found.columns["cat"].tolist() == ["p", "q", None]
    pyarrow.parquet.write_table(pa.table({"l": [[1], [2]]}), path)
    with pytest.raises(InputFault, match="neither a number nor text"):
        tables.read(path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_large_npz_table_is_read_in_rows(packed: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(5000, 4)), np.array(["a", "b"] * 2500)
    path = tmp_path / "rows.npz"
    (np.savez_compressed if packed else np.savez)(path, X=x, y=y, columns=np.array(list("pqrs")))
    whole = npz_.Npz(path)
    parts = npz_.Npz(path, loaded_max=1000)
    assert whole.header == parts.header == ["p", "q", "r", "s", "y"]
    assert set(parts.tensors) == {"columns"} and set(whole.tensors) == {"X", "y", "columns"}
    for file in (whole, parts):
        columns = [np.concatenate(c) for c in zip(*file.pieces(), strict=True)]
        np.testing.assert_array_equal(np.column_stack(columns[:4]).astype(float), x)
        assert columns[4].tolist() == y.tolist()
    np.savez(path, X=np.asfortranarray(x))
    with pytest.raises(InputFault, match="over the limit of 1000") as fault:
        npz_.Npz(path, loaded_max=1000)
    assert "C order" in fault.value.advice


def test_an_npz_of_objects_or_of_a_false_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    np.savez(path, X=np.array([[{"a": 1}]], dtype=object))
    with pytest.raises(InputFault, match="not a readable NPZ"):
        tables.read(path)
    import zipfile

    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 10**6)}
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("image.npy", head.getvalue())
    with pytest.raises(InputFault, match="over the limit"):
        tables.read(path)
