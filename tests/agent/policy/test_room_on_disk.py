"""What a bundle needs of the disk and the quota, and what makes room for it."""

import hashlib
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge_agent.accept import Offer, Refused, check, disk_bytes
from edge_agent.delivery.store import ChunkStore
from edge_agent.slot import held
from edge_contract import bundle as bundles
from edge_contract import manifest as manifests
from edge_contract.errors import MachineFault
from edge_contract.manifest import Manifest

PLENTY = {"onnxruntime": "99", "ram_bytes": 10**9, "disk_bytes": 10**9, "free_bytes": 10**9}


@pytest.fixture(scope="module")
def manifest(tiny_bundle) -> Manifest:
    return bundles.read(tiny_bundle()).manifest


def test_the_quota_says_what_is_needed_free_and_allowed_and_does_not_last(
    manifest: Manifest,
) -> None:
    with pytest.raises(Refused) as caught:
        check(manifest, Offer(**PLENTY, quota_bytes=50_000_000, quota_free_bytes=1000))
    assert caught.value.what.startswith("disk quota: pump 1.0 needs ")
    assert caught.value.what.endswith(" kB, 1 kB free of 50 MB")
    assert "disk_max" in caught.value.advice
    assert not caught.value.lasting
    need = disk_bytes(manifest, frozenset())
    check(manifest, Offer(**PLENTY, quota_bytes=50_000_000, quota_free_bytes=need))
    with pytest.raises(Refused, match=r" 0 B free of 50 MB"):
        check(manifest, Offer(**PLENTY, quota_bytes=50_000_000, quota_free_bytes=-5))
    check(manifest, Offer(**PLENTY))


def test_files_of_other_slots_are_not_needed_twice(manifest: Manifest, tmp_path: Path) -> None:
    raw = sum(file.raw_size for file in manifest.files)
    stored = sum(file.size for file in manifest.files)
    assert disk_bytes(manifest, frozenset()) == raw + stored
    slots = tmp_path / "slots"
    (slots / "a").mkdir(parents=True)
    (slots / "b").mkdir()
    (slots / "b" / "manifest.json").write_bytes(b"damaged")
    assert held(slots) == frozenset()
    (slots / "a" / "manifest.json").write_bytes(manifests.encode(manifest))
    assert disk_bytes(manifest, held(slots)) == raw
    one = replace(manifest, files=manifest.files[:1])
    (slots / "a" / "manifest.json").write_bytes(manifests.encode(one))
    assert disk_bytes(manifest, held(slots)) == raw + stored - manifest.files[0].size


def test_a_store_knows_what_one_fetch_takes_and_gives_back_the_rest(
    manifest: Manifest, tmp_path: Path
) -> None:
    store = ChunkStore(tmp_path / "chunks")
    assert store.size_bytes() == 0
    own, data = manifests.digest(manifests.encode(manifest)), b"x" * 1000
    other = hashlib.sha256(data).hexdigest()
    store.begin(own, manifests.encode(manifest))
    store.write(other, data)
    first = manifest.files[0]
    (tmp_path / "chunks" / first.sha256).write_bytes(b"y" * first.size)
    assert store.size_bytes(own) == first.size
    assert store.size_bytes() == first.size + 1000 + len(manifests.encode(manifest))
    store.clear(keep={own})
    assert store.read(other, 1000) is None
    assert store.size_bytes(own) == first.size


def test_a_store_that_cannot_be_cleared_says_so_in_the_one_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineFault, match="cannot clear up"):
        ChunkStore(tmp_path / "file").clear(keep=())
    (tmp_path / "chunks" / ("0" * 64)).mkdir(parents=True)  # not to be unlinked, even by root
    with pytest.raises(MachineFault, match="cannot clear up"):
        ChunkStore(tmp_path / "chunks").clear(keep=())
    ChunkStore(tmp_path / "none").clear(keep=())


def test_a_probe_leaves_nothing_and_refuses_where_nothing_can_be_written(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path / "chunks")
    store.probe()
    assert list((tmp_path / "chunks").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(MachineFault, match="takes no chunk"):
        ChunkStore(tmp_path / "file" / "chunks").probe()
