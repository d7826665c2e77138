"""Slots on disk: verified to the byte, removed in one step, pruned only when nobody keeps them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge_agent import slot
from edge_agent.accept import Offer, Refused, check
from edge_contract import bundle as bundles
from edge_contract.bundle import MANIFEST_MEMBER, Bundle
from edge_contract.errors import InputFault, MachineFault

PLENTY = Offer(onnxruntime="1.31.1", ram_bytes=10**9, disk_bytes=10**9, free_bytes=10**9)


def lay(bundle: Bundle, slots: Path) -> Path:
    """A slot as the delivery leaves it."""
    folder = slots / bundle.digest
    folder.mkdir(parents=True)
    (folder / MANIFEST_MEMBER).write_bytes(bundle.manifest_bytes)
    for file in bundle.manifest.files:
        (folder / file.name).write_bytes(bundle.file(file.name))
    return folder


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Callable[..., bytes]) -> Bundle:
    return bundles.read(tiny_bundle())


def test_a_whole_slot_gives_its_manifest(bundle: Bundle, tmp_path: Path) -> None:
    assert slot.verify(lay(bundle, tmp_path), bundle.digest) == bundle.manifest


def test_one_byte_anywhere_is_noticed(bundle: Bundle, tmp_path: Path) -> None:
    folder = lay(bundle, tmp_path)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            spoiled = bytearray(whole)
            spoiled[at] ^= 1
            path.write_bytes(bytes(spoiled))
            with pytest.raises(InputFault, match=path.name):
                slot.verify(folder, bundle.digest)
        for shorter in (b"", whole[:-1]):
            path.write_bytes(shorter)
            with pytest.raises(InputFault, match=path.name):
                slot.verify(folder, bundle.digest)
        path.unlink()
        with pytest.raises(InputFault, match=path.name):
            slot.verify(folder, bundle.digest)
        path.write_bytes(whole)
    assert slot.verify(folder, bundle.digest)


def test_a_slot_under_another_name_is_not_that_slot(bundle: Bundle, tmp_path: Path) -> None:
    folder = lay(bundle, tmp_path)
    with pytest.raises(InputFault, match="is not the manifest"):
        slot.verify(folder, "0" * 64)


def test_what_is_kept_stays_and_the_rest_goes(tmp_path: Path) -> None:
    kept, gone, half = "a" * 64, "b" * 64, f".{'c' * 64}.part"
    for name in (kept, gone, half, f".gone-{'d' * 64}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(b"x")
    (tmp_path / "stray").touch()
    assert slot.prune(tmp_path, [kept], sweep=False) == [gone]
    assert {p.name for p in tmp_path.iterdir()} == {kept, half, f".gone-{'d' * 64}", "stray"}
    assert slot.prune(tmp_path, [kept], sweep=True) == []
    assert [p.name for p in tmp_path.iterdir()] == [kept]
    assert slot.prune(tmp_path / "nowhere", [], sweep=True) == []


def test_a_removal_that_was_cut_off_does_not_hinder_the_next(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 64)
    for name in (folder.name, f".gone-{folder.name}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(b"x")
    slot.remove(folder)
    slot.remove(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"onnxruntime": "1.17.3"}, "needs onnxruntime 1.18, this machine has 1.17.3"),
        ({"ram_bytes": 999_999}, "needs 1000000 bytes of memory, 999999 are allowed"),
        ({"disk_bytes": 10, "free_bytes": 10}, "the whole disk has 10"),
        ({"providers": ("CUDAExecutionProvider",)}, "computes on CPUExecutionProvider"),
    ],
)
def test_a_machine_that_cannot_says_so_for_good(
    bundle: Bundle, change: dict[str, object], said: str
) -> None:
    import dataclasses

    check(bundle.manifest, PLENTY)
    with pytest.raises(Refused, match=said) as caught:
        check(bundle.manifest, dataclasses.replace(PLENTY, **change))
    assert caught.value.lasting
    assert isinstance(caught.value, MachineFault)


def test_a_disk_that_is_full_now_may_have_room_later(bundle: Bundle) -> None:
    need = sum(file.size + file.raw_size for file in bundle.manifest.files)
    import dataclasses

    check(bundle.manifest, dataclasses.replace(PLENTY, free_bytes=need))
    with pytest.raises(Refused) as caught:
        check(bundle.manifest, dataclasses.replace(PLENTY, free_bytes=need - 1))
    assert not caught.value.lasting


def test_an_older_runtime_than_needed_is_told_by_number_not_by_letter(bundle: Bundle) -> None:
    import dataclasses

    floor = replace(bundle.manifest, runtime=replace(bundle.manifest.runtime, onnxruntime="1.9"))
    check(floor, dataclasses.replace(PLENTY, onnxruntime="1.10.0"))
