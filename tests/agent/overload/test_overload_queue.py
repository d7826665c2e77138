"""Who is next, and who is turned away: the one rule of every door."""

import random
import threading
from collections import Counter

import numpy as np
import pytest

from edge_agent import overload
from edge_agent.desk import Desk
from edge_agent.overload import Queue, Reason, Rules, Waiting, check_size
from edge_contract.errors import InputFault

WAIT_S = 60.0


class Requests:
    """Requests by number, and what became of each."""

    def __init__(self) -> None:
        self.ends: dict[int, list[str]] = {}

    def make(
        self, model: str = "m", deadline_s: float = float("inf"), size_bytes: int = 0
    ) -> Waiting:
        number = len(self.ends)
        self.ends[number] = []
        return Waiting(
            model,
            lambda: self.ends[number].append("worked"),
            lambda reason: self.ends[number].append(reason.value),
            deadline_s,
            size_bytes,
        )


def tell(away) -> None:
    for who, reason in away:
        who.turned_away(reason)


def offer(queue: Queue, new: Waiting, now_s: float = 0.0) -> None:
    tell(queue.offer(new, now_s))


def work(queue: Queue, now_s: float = 0.0, took_s: float = 0.0) -> str:
    """Take one and finish it; its model, "" for nobody."""
    taken, away = queue.take(now_s)
    tell(away)
    if taken is None:
        return ""
    taken.work()
    queue.done(taken.model, took_s)
    return taken.model


def test_models_take_turns_and_each_keeps_its_order() -> None:
    seen = Requests()
    queue = Queue(Rules())
    for model in "aaaabbc":
        offer(queue, seen.make(model))
    assert "".join(work(queue) for _ in range(8)) == "abcabaa"
    order = [number for number, ends in seen.ends.items() if ends == ["worked"]]
    assert order == list(range(7))


def test_the_newest_is_turned_away_where_all_are_of_one_model() -> None:
    seen, queue = Requests(), Queue(Rules(waiting_max=2))
    for _ in range(3):
        offer(queue, seen.make())
    assert seen.ends == {0: [], 1: [], 2: ["full"]}
    assert queue.counts == (0, 1, 0, 2, 0)


def test_a_model_with_many_makes_room_for_one_with_few() -> None:
    seen, queue = Requests(), Queue(Rules(waiting_max=4))
    for model in "aaaabb":
        offer(queue, seen.make(model))
    assert list(seen.ends.values()) == [[], [], ["full"], ["full"], [], []]
    offer(queue, seen.make("b"))  # two and two: the one that comes goes
    assert seen.ends[6] == ["full"]
    assert len(queue) == 4


def test_large_requests_are_bounded_by_their_bytes_and_give_way_to_small_ones() -> None:
    seen, queue = Requests(), Queue(Rules(waiting_max=100, waiting_bytes_max=1000))
    for size in (400, 400, 400):
        offer(queue, seen.make("images", size_bytes=size))
    assert list(seen.ends.values()) == [[], [], ["full"]]
    for _ in range(5):
        offer(queue, seen.make("sensor", size_bytes=50))
    assert seen.ends[1] == ["full"], "two hundred bytes were left: the fifth needs an image's"
    assert [seen.ends[number] for number in (0, 3, 4, 5, 6, 7)] == [[]] * 6
    offer(queue, seen.make("images", size_bytes=1001))
    assert seen.ends[8] == ["full"]
    queue.clear(Reason.STOPPING)
    offer(queue, seen.make("images", size_bytes=1001))
    assert seen.ends[9] == [], "alone in line it may be as large as its door lets in"


def test_what_is_past_its_deadline_makes_room_first_and_is_never_computed() -> None:
    seen, queue = Requests(), Queue(Rules(waiting_max=2))
    offer(queue, seen.make(deadline_s=1.0))
    offer(queue, seen.make(deadline_s=9.0))
    offer(queue, seen.make(), now_s=2.0)
    assert seen.ends == {0: ["late"], 1: [], 2: []}
    assert [work(queue, now_s=10.0), work(queue, now_s=10.0)] == ["m", ""]
    assert seen.ends == {0: ["late"], 1: ["late"], 2: ["worked"]}
    assert queue.counts == (1, 0, 2, 0, 0)


def test_what_will_be_too_late_is_turned_away_when_it_comes() -> None:
    """Ten seconds of work are in line; who gives five is told at once, who gives twenty waits."""
    seen, queue = Requests(), Queue(Rules())
    offer(queue, seen.make())
    work(queue, took_s=2.0)
    for _ in range(5):
        offer(queue, seen.make())
    assert queue.wait_s("m") == pytest.approx(10.0)
    offer(queue, seen.make(deadline_s=5.0))
    offer(queue, seen.make(deadline_s=20.0))
    assert (seen.ends[6], seen.ends[7]) == (["late"], [])
    assert queue.wait_s("other") == pytest.approx(2.0), "its turn comes after one of the others"


def test_a_slow_model_with_nobody_in_line_is_always_tried() -> None:
    """Else one slow answer would close it for those in a hurry, for ever."""
    seen, queue = Requests(), Queue(Rules())
    offer(queue, seen.make())
    work(queue, took_s=100.0)
    offer(queue, seen.make(deadline_s=1.0))
    assert work(queue, now_s=0.5) == "m"


def test_no_more_of_a_model_at_once_than_its_limit() -> None:
    queue = Queue(Rules(at_once={"slow": 1}, at_once_default=2), threads=8)
    for model in ["slow"] * 3 + ["quick"] * 3:
        offer(queue, Requests().make(model))
    taken = [queue.take(0.0)[0] for _ in range(4)]
    assert [each.model if each else "" for each in taken] == ["slow", "quick", "quick", ""]
    queue.done("slow", 0.0)
    third = queue.take(0.0)[0]
    assert third is not None
    assert third.model == "slow"


@pytest.mark.parametrize("seed", range(40))
def test_every_request_ends_once_and_no_bound_is_passed(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    rules = Rules(
        waiting_max=rng.randint(1, 8),
        waiting_bytes_max=rng.randint(9, 20),
        at_once={"a": rng.randint(1, 2)},
        at_once_default=2,
    )
    queue, seen, now_s = Queue(rules, threads=3), Requests(), 0.0
    running: Counter[str] = Counter()
    for _ in range(300):
        now_s += rng.random()
        match rng.choice("ooott+"):
            case "o":
                deadline = rng.choice([float("inf"), now_s + 4 * rng.random()])
                offer(queue, seen.make(rng.choice("aab"), deadline, rng.randint(0, 9)), now_s)
            case "t":
                taken, away = queue.take(now_s)
                tell(away)
                if taken:
                    assert now_s <= taken.deadline_s
                    taken.work()
                    running[taken.model] += 1
            case _:
                for model in [name for name, count in running.items() if count]:
                    running[model] -= 1
                    queue.done(model, rng.random())
        assert len(queue) <= rules.waiting_max
        assert queue.size_bytes <= rules.waiting_bytes_max
        assert all(count <= rules.limit(model) for model, count in running.items())
        assert queue.counts.running == running.total()
        open_ = sum(not ends for ends in seen.ends.values())
        assert open_ == len(queue)
    tell(queue.clear(Reason.STOPPING))
    assert {len(ends) for ends in seen.ends.values()} == {1}
    tally = Counter(ends[0] for ends in seen.ends.values())
    assert queue.counts[:3] == (tally["worked"], tally["full"], tally["late"])


def test_a_desk_answers_others_while_a_model_takes_long() -> None:
    """Two threads, one of a model at once: whoever is slow holds up nobody else."""
    desk = Desk("test", Rules(at_once_default=1), threads=2)
    release, begun, quick = threading.Event(), threading.Event(), threading.Event()
    seen = Requests()

    def slow() -> None:
        begun.set()
        release.wait(WAIT_S)

    try:
        desk.submit(Waiting("slow", slow, lambda _: None))
        assert begun.wait(WAIT_S)
        for _ in range(50):
            desk.submit(seen.make("slow"))
        desk.submit(Waiting("quick", quick.set, lambda _: None))
        assert quick.wait(WAIT_S)
        assert not any(seen.ends.values())
    finally:
        release.set()
        desk.stop()
    assert {len(ends) for ends in seen.ends.values()} == {1}


def test_a_desk_outlives_work_that_fails_and_turns_the_rest_away_at_the_end() -> None:
    desk = Desk("test", Rules())
    done = threading.Event()

    def broken() -> None:
        raise RuntimeError("a fault of ours")

    desk.submit(Waiting("m", broken, lambda _: None))
    desk.submit(Waiting("m", done.set, lambda _: None))
    assert done.wait(WAIT_S)
    desk.stop()
    seen = Requests()
    desk.submit(seen.make())
    assert seen.ends == {0: ["stopping"]}
    assert desk.counts.running == 0


@pytest.mark.parametrize(
    ("rows", "values"),
    [
        (np.zeros((3, 4)), 12),
        ({"X": np.zeros((5, 2)), "Y": np.zeros(3)}, 13),
        ({"temp": 1.0, "hum": 2.0}, 2),
        ([{"temp": 1.0, "hum": 2.0}, {"temp": 1.0}], 3),
        ([[1, 2, 3], [4, 5, 6]], 6),
        ([1.0, 2.0], 2),
    ],
)
def test_a_request_is_as_large_as_its_values(rows, values) -> None:
    check_size(rows, values)
    with pytest.raises(InputFault, match=f"{values} values in one request, {values - 1} are"):
        check_size(rows, values - 1)


def test_names_that_clients_make_up_leave_no_trace_without_end() -> None:
    requests, queue = Requests(), Queue(Rules())
    for number in range(2 * overload.MODELS_MAX):
        offer(queue, requests.make("m"))
        offer(queue, requests.make(f"made-up-{number}"))
        while work(queue, took_s=1.0):
            pass
    assert len(queue._took_s) <= overload.MODELS_MAX
    offer(queue, requests.make("m"))
    assert queue.wait_s("m") > 0  # who is asked all the time is still known
