"""What is wanted: only what the signed pointer names, never below its floor."""

import pytest

from edge_agent.choose import choose, models, newer
from edge_contract import messages
from edge_contract.messages import Desired, Pointer, Release, Track


def release(version: str) -> Release:
    return messages.release("pump", version, version.replace(".", "").rjust(64, "0"))


TRACK = Track(
    stable=release("2.0"), candidate=release("3.0"), others=(release("1.0"),), floor="1.0"
)


def pointer(track: Track | None = TRACK) -> Pointer:
    return Pointer(fleet="home", channel="stable", models={"pump": track} if track else {})


def desired(word: str, revision: int = 1) -> Desired:
    return Desired(revision=revision, models={"pump": word})


@pytest.mark.parametrize(
    ("wish", "version"),
    [
        (None, "2.0"),
        (Desired(revision=1), "2.0"),
        (desired("stable"), "2.0"),
        (desired("candidate"), "3.0"),
        (desired("1.0"), "1.0"),
        (desired("3.0"), "3.0"),
    ],
)
def test_desired_chooses_among_the_signed_releases(wish: Desired | None, version: str) -> None:
    choice = choose(pointer(), "pump", wish)
    assert choice.release == release(version)
    assert choice.reason == ""
    assert choice.revision == (wish.revision if wish else 0)


def test_a_version_that_was_not_released_is_not_replaced_by_another() -> None:
    choice = choose(pointer(), "pump", desired("9.9"))
    assert choice.release is None
    assert "9.9" in choice.reason


def test_a_model_that_the_channel_does_not_name_is_not_wanted() -> None:
    choice = choose(pointer(None), "pump", None)
    assert choice.release is None
    assert "no model pump" in choice.reason


def test_candidate_without_a_candidate_is_stable() -> None:
    track = Track(stable=release("2.0"))
    assert choose(pointer(track), "pump", desired("candidate")).release == release("2.0")


def test_a_version_that_went_with_a_raised_floor_is_left_for_stable() -> None:
    """The publisher no longer names what no device may run; a device must not stay there."""
    raised = Track(stable=release("2.0"), floor="2.0")
    pointer = Pointer(fleet="home", channel="stable", models={"pump": raised})
    found = choose(pointer, "pump", Desired(revision=1, models={"pump": "1.0"}))
    assert found.release == raised.stable
    assert "1.0 is below the floor 2.0" in found.reason
    newer = choose(pointer, "pump", Desired(revision=1, models={"pump": "2.5"}))
    assert newer.release is None  # not released yet: stay


@pytest.mark.parametrize(
    ("floor", "version"),
    [("1.0", "1.0"), ("1.0.0", "1.0"), ("1.1", "2.0"), ("2.0", "2.0"), ("2.1", None)],
)
def test_nothing_below_the_floor_is_wanted(floor: str, version: str | None) -> None:
    track = Track(stable=release("2.0"), others=(release("1.0"),), floor=floor)
    choice = choose(pointer(track), "pump", desired("1.0"))
    assert choice.release == (release(version) if version else None)
    assert ("below the floor" in choice.reason) == (version != "1.0")


def test_a_revision_only_rises() -> None:
    assert newer(None, desired("stable", 0))
    assert newer(desired("stable", 3), desired("1.0", 4))
    assert not newer(desired("stable", 3), desired("1.0", 3))
    assert not newer(desired("stable", 3), desired("1.0", 2))


def test_an_agent_follows_all_models_of_its_channel_or_those_it_names() -> None:
    two = Pointer(fleet="home", channel="stable", models={"b": TRACK, "a": TRACK})
    assert models(two, ()) == ("a", "b")
    assert models(two, ("b", "zz")) == ("b", "zz")
