"""A label counts once, for the version that answered, in the bin of its score; and never a row."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from msgspec.structs import replace

from edge_agent import Model, predictions
from edge_agent.predictions import BUNDLES_MAX, Bundle, Id, bundle_of
from edge_contract import aside
from edge_contract import bundle as bundles
from edge_contract.aside import DIFFERENCE_BUCKETS
from edge_contract.manifest import Outputs

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}
ROWS = np.random.default_rng(5).normal(size=(40, 4)).tolist()


def test_labels_become_counts_of_score_bin_and_correctness(desk, tiny_bundle) -> None:
    """An oracle beside it: the same rows through a model that nobody watches."""
    seat = desk.serve(tiny_bundle())
    found = seat.predict(ROWS)
    truth = ["bad" if row[0] > 0 else "good" for row in ROWS]
    taken = desk.give("pump", *((each.id, t) for each, t in zip(found, truth, strict=True)))
    assert taken.counted == len(ROWS)
    desk.at_s = 61
    desk.feedback.tick(desk.now())
    (record,) = desk.records()
    assert (record.model, record.version) == ("pump", "1.0")
    assert record.bundle.hex() == seat.model.digest
    bins = record.bins
    expected = np.zeros((2, 2, bins), dtype=int)
    for each, t in zip(Model.from_bundle(bundles.read(tiny_bundle())).predict(ROWS), truth,
                       strict=True):  # fmt: skip
        at = min(int(each.probabilities["good"] * bins), bins - 1)
        expected[int(each.label == t), ["bad", "good"].index(each.label), at] += 1
    assert aside.counts_of(record).tolist() == expected.tolist()


def test_every_prediction_has_an_id_of_its_own_and_threads_get_theirs(desk, tiny_bundle) -> None:
    seat = desk.serve(tiny_bundle())
    ids: list[str] = []

    def ask() -> None:
        ids.extend(seat.predict(ROW).id for _ in range(200))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 800
    assert {int(each.split("-")[1]) for each in ids} == set(range(1, 801))


def test_the_third_row_of_a_call_has_its_own_id_and_one_by_its_place(desk, tiny_bundle) -> None:
    found = desk.serve(tiny_bundle()).predict(ROWS[:5])
    first, third = found[0].id, found[2]
    assert desk.give("pump", (f"{first}.2", third.label)).counted == 1
    assert desk.give("pump", (third.id, third.label)).repeated == 1


def test_errors_of_a_regression_are_counted_by_sign_in_deviations(desk, regression_bundle) -> None:
    seat = desk.serve(regression_bundle())
    unit = aside.unit_of(seat.model.profile)
    low, high = seat.predict(ROW), seat.predict(ROW)
    assert low.value is not None
    taken = desk.give("flow", (low.id, low.value + 3 * unit), (high.id, high.value - 0.3 * unit))
    assert taken.counted == 2
    desk.feedback.flush(desk.now())
    (record,) = desk.records()
    counts = aside.counts_of(record)
    assert (record.kind, record.unit, counts.shape) == ("value", unit, (1, 2, DIFFERENCE_BUCKETS))
    assert counts.sum() == 2
    assert counts[0, 0, aside.difference_bucket(3.0)] == 1, "three deviations too low"
    assert counts[0, 1, aside.difference_bucket(0.3)] == 1, "less than half of one too high"


def test_a_label_counts_once_however_often_it_comes(desk, tiny_bundle) -> None:
    answer = desk.serve(tiny_bundle()).predict(ROW)
    other = "good" if answer.label == "bad" else "bad"
    desk.give("pump", (answer.id, answer.label))
    again = desk.give("pump", (answer.id, answer.label), (answer.id, other), (answer.id, other))
    assert (again.counted, again.repeated, again.contradicted) == (0, 1, 2)
    desk.feedback.flush(desk.now())
    (record,) = desk.records()
    assert aside.counts_of(record)[1].sum() == 1, "the first one stays"
    assert aside.counts_of(record).sum() == 1
    assert (record.repeated, record.contradicted) == (1, 2)


@pytest.mark.parametrize("orderly", [True, False])
def test_a_label_that_went_home_never_counts_again_after_a_restart(
    desk, tiny_bundle, orderly: bool
) -> None:
    seat = desk.serve(tiny_bundle())
    first, second = seat.predict(ROW), seat.predict(ROW)
    desk.give("pump", (first.id, first.label))
    desk.at_s = 61
    desk.feedback.tick(desk.now())  # the record is on disk, and so is the mark
    if orderly:
        desk.feedback.flush(desk.now())
    later = desk.again()
    later.serve(tiny_bundle())
    taken = later.give("pump", (first.id, first.label), (second.id, "bad"))
    assert (taken.repeated, taken.counted) == (1, 1)
    later.feedback.flush(later.now())
    assert sum(int(aside.counts_of(record).sum()) for record in later.records()) == 2


def test_a_label_whose_mark_cannot_be_kept_is_held_back_and_sent_later(desk, tiny_bundle) -> None:
    answer = desk.serve(tiny_bundle()).predict(ROW)
    desk.give("pump", (answer.id, answer.label))
    desk.at_s = 61

    in_the_way = desk.folder / "answers.bin"
    in_the_way.mkdir()
    desk.feedback.tick(desk.now())
    assert desk.records() == []
    in_the_way.rmdir()
    desk.feedback.tick(desk.now())
    assert len(desk.records()) == 1


def test_labels_of_a_version_that_was_replaced_count_for_it(desk, tiny_bundle) -> None:
    old = desk.serve(tiny_bundle("1.0")).predict(ROW)
    new = desk.serve(tiny_bundle("2.0", seed=8)).predict(ROW)
    desk.give("pump", (old.id, "bad"), (new.id, "bad"))
    desk.feedback.flush(desk.now())
    assert {record.version: aside.counts_of(record).sum() for record in desk.records()} == {
        "1.0": 1, "2.0": 1,
    }  # fmt: skip


def test_what_is_no_answer_of_the_model_is_counted_and_changes_nothing(
    desk, tiny_bundle, regression_bundle
) -> None:
    pump = desk.serve(tiny_bundle()).predict(ROW)
    flow = desk.serve(regression_bundle()).predict(ROW)
    wrong = [
        "",
        "x",
        "-",
        "1-",
        "9-1",
        "1-0",
        "1-999",
        "1-1.99999",
        "1-" + "9" * 30,
        "１-1",
        flow.id,
    ]
    taken = desk.give("pump", *((which, "bad") for which in wrong))
    assert taken.unknown == len(wrong)
    assert desk.give("pump", (pump.id, "bad")).counted == 1
    desk.feedback.flush(desk.now())
    assert sum(record.unknown for record in desk.records()) == len(wrong)


def test_a_label_that_the_model_does_not_know_is_refused_with_those_it_knows(
    desk, tiny_bundle, regression_bundle
) -> None:
    pump = desk.serve(tiny_bundle()).predict(ROW)
    flow = desk.serve(regression_bundle()).predict(ROW)
    taken = desk.give("", (pump.id, "ugly"), (pump.id, 1), (flow.id, "bad"), (flow.id, True),
                      (flow.id, float("inf")), (flow.id, 10**400))  # fmt: skip
    assert taken.refused == 6
    assert "'ugly' is no label of pump 1.0: bad, good" in taken.said
    assert desk.give("", (pump.id, "bad"), (flow.id, 1)).counted == 2, "it may still be labelled"


def test_numbers_as_labels_are_taken_as_people_write_them(desk, mixed_bundle) -> None:
    seat = desk.serve(mixed_bundle())
    row = {"temp": 1.0, "hum": 0.0, "site": "lyon"}
    ids = [seat.predict(row).id for _ in range(4)]
    taken = desk.give("site-model", *zip(ids, (1, "1", 1.0, True), strict=True))
    assert (taken.counted, taken.refused) == (3, 1)


def test_a_label_may_come_as_long_as_was_said_and_no_longer(desk, tiny_bundle) -> None:
    seat = desk.serve(tiny_bundle())
    early, other = seat.predict(ROW), seat.predict(ROW)
    desk.at_s = 3600
    assert desk.give("pump", (early.id, "bad")).counted == 1
    desk.at_s = 3601
    assert desk.give("pump", (other.id, "bad")).late == 1


def test_the_ring_keeps_so_many_answers_and_says_late_of_those_before(desk, tiny_bundle) -> None:
    seat = desk.serve(tiny_bundle())
    first = seat.predict(ROW)
    many = seat.predict([ROW] * (desk.keep + 20))
    last, twentieth = many[-1], many[19]
    taken = desk.give("pump", (first.id, "bad"), (twentieth.id, "bad"), (last.id, "bad"))
    assert (taken.late, taken.counted) == (2, 1)
    assert desk.give("pump", (many[20].id, "bad")).counted == 1


def test_answers_that_a_kill_took_are_unknown_and_their_numbers_lead_nowhere_else(
    desk, tiny_bundle
) -> None:
    seat = desk.serve(tiny_bundle())
    saved = seat.predict(ROW)
    desk.feedback.flush(desk.now())
    lost = seat.predict(ROW)
    later = desk.again()
    fresh = later.serve(tiny_bundle()).predict(ROW)
    assert fresh.id != lost.id
    taken = later.give("pump", (saved.id, "bad"), (lost.id, "bad"), (fresh.id, "bad"))
    assert (taken.counted, taken.counted + taken.unknown + taken.late) == (2, 3)


def test_another_size_keeps_the_newest_answers(desk, tiny_bundle) -> None:
    seat = desk.serve(tiny_bundle())
    ids = [each.id for each in seat.predict([ROW] * 90)]
    desk.feedback.flush(desk.now())
    small = desk.again(keep=10)
    assert [small.give("pump", (each, "bad")).counted for each in ids[-11:]] == [0] + [1] * 10
    small.feedback.flush(small.now())
    large = small.again(keep=1000)
    assert large.give("pump", (ids[-1], "bad")).repeated == 1


@pytest.mark.parametrize("cut", [0, 3, 11, 12, 40, 200, -1])
def test_a_file_that_was_damaged_costs_its_answers_and_nothing_else(
    desk, tiny_bundle, cut: int
) -> None:
    seat = desk.serve(tiny_bundle())
    answer = seat.predict(ROW)
    desk.feedback.flush(desk.now())
    path = desk.folder / "answers.bin"
    path.write_bytes(path.read_bytes()[:cut])
    later = desk.again()
    assert later.give("pump", (answer.id, "bad")).unknown == 1
    fresh = later.serve(tiny_bundle()).predict(ROW)
    assert later.give("pump", (fresh.id, "bad")).counted == 1


def test_a_bit_that_turned_on_the_disk_costs_the_file(desk, tiny_bundle) -> None:
    answer = desk.serve(tiny_bundle()).predict(ROW)
    desk.feedback.flush(desk.now())
    path = desk.folder / "answers.bin"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1  # in the score of the only entry
    path.write_bytes(data)
    assert desk.again().give("pump", (answer.id, "bad")).unknown == 1


def test_nothing_of_a_row_is_on_disk(desk, tiny_bundle) -> None:
    row = {"temp": 0.123456789, "hum": -1.0, "rpm": 2.0, "volt": 0.0}
    desk.serve(tiny_bundle()).predict(row)
    desk.feedback.flush(desk.now())
    data = (desk.folder / "answers.bin").read_bytes()
    for kind in ("<f4", "<f8", ">f8"):
        assert np.array(0.123456789, dtype=kind).tobytes() not in data
    assert b"temp" not in data


def test_models_whose_answers_no_label_fits_give_no_ids(tiny_bundle) -> None:
    manifest = bundles.read(tiny_bundle()).manifest
    meaningless = replace(manifest, outputs=Outputs(tensors=("label", "probabilities")))
    assert bundle_of(manifest, None, "0" * 64) is not None
    assert bundle_of(meaningless, None, "0" * 64) is None


def test_more_versions_than_are_kept_push_out_the_one_that_answered_longest_ago(desk) -> None:
    def bundle(n: int) -> Bundle:
        return Bundle(
            model="pump", version=f"{n}.0", sha256=f"{n:064x}", kind="label", labels=("a", "b")
        )

    numbers = [desk.answers.open(bundle(n)) for n in range(BUNDLES_MAX)]
    firsts = [desk.answers.note(number, [0], [0.5]) for number in numbers]
    desk.answers.open(bundle(999))
    states = [desk.answers.find(Id(1, first)) for first in firsts]
    assert isinstance(states[0], str)
    assert not any(isinstance(each, str) for each in states[1:])


def test_a_label_that_looks_like_a_number_is_found_as_it_is_written() -> None:
    bundle = predictions.Bundle(
        model="m", version="1", sha256="0" * 64, kind="label", labels=("1.0", "2", "True")
    )
    said = ("1.0", 1.0, 2.0, 2, True, 1, 3.0)
    found = [predictions.truth_of(bundle, label) for label in said]
    assert found == [0.0, 0.0, 1.0, 1.0, 2.0, None, None]
