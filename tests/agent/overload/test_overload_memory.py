"""Room in memory: what the kernel says in /proc and /sys, and what is loaded by it."""

import dataclasses
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge_agent import hardware, memory
from edge_agent.memory import Memory, NoRoom
from edge_agent.model import Model
from edge_contract import bundle as bundles
from edge_contract.errors import MachineFault

MB = 10**6
MEMINFO = "MemTotal:        512000 kB\nMemFree:  9000 kB\nMemAvailable:    200000 kB\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_limit_it_is_what_the_kernel_calls_available(tmp_path) -> None:
    seen = memory.read(tree(tmp_path, {"proc/meminfo": MEMINFO}))
    assert seen == Memory(512000 * 1024, 200000 * 1024, "machine", 0.0)


@pytest.mark.parametrize(
    ("files", "total", "left", "bound"),
    [
        (  # the limit of a systemd unit
            {
                "proc/self/cgroup": "0::/system.slice/edge-agent.service\n",
                "sys/fs/cgroup/system.slice/edge-agent.service/memory.max": "100000000\n",
                "sys/fs/cgroup/system.slice/edge-agent.service/memory.high": "max\n",
                "sys/fs/cgroup/system.slice/edge-agent.service/memory.current": "70000000\n",
                "sys/fs/cgroup/system.slice/edge-agent.service/memory.stat": (
                    "anon 40000000\ninactive_file 20000000\nslab_reclaimable 1000000\n"
                ),
                "sys/fs/cgroup/system.slice/memory.max": "max\n",
            },
            100 * MB, 51 * MB, "/sys/fs/cgroup/system.slice/edge-agent.service",
        ),
        (  # of the slice above it, which another unit has filled
            {
                "proc/self/cgroup": "0::/a.slice/b.service\n",
                "sys/fs/cgroup/a.slice/b.service/memory.max": "90000000\n",
                "sys/fs/cgroup/a.slice/b.service/memory.current": "10000000\n",
                "sys/fs/cgroup/a.slice/memory.max": "150000000\n",
                "sys/fs/cgroup/a.slice/memory.current": "145000000\n",
            },
            90 * MB, 5 * MB, "/sys/fs/cgroup/a.slice",
        ),
        (  # memory.high, above which everything is slowed down
            {
                "proc/self/cgroup": "0::/b\n",
                "sys/fs/cgroup/b/memory.max": "190000000\n",
                "sys/fs/cgroup/b/memory.high": "60000000\n",
                "sys/fs/cgroup/b/memory.current": "10000000\n",
            },
            60 * MB, 50 * MB, "/sys/fs/cgroup/b",
        ),
        (  # a container with control groups of its own
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "64000000\n",
                "sys/fs/cgroup/memory.current": "65000000\n",
            },
            64 * MB, 0, "/sys/fs/cgroup",
        ),
        (  # version 1, the host's path seen from a container
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/77aa\n0::/docker/77aa\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "128000000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "100000000\n",
                "sys/fs/cgroup/memory/memory.stat": "cache 5\ntotal_inactive_file 12000000\n",
            },
            128 * MB, 40 * MB, "/sys/fs/cgroup/memory",
        ),
        (  # a namespace that begins elsewhere
            {
                "proc/self/cgroup": "0::/../../else\n",
                "sys/fs/cgroup/memory.max": "99000000\n",
                "sys/fs/cgroup/memory.current": "9000000\n",
            },
            99 * MB, 90 * MB, "/sys/fs/cgroup",
        ),
    ],
)  # fmt: skip
def test_the_lowest_limit_on_the_way_up_holds(tmp_path, files, total, left, bound) -> None:
    seen = memory.read(tree(tmp_path, {"proc/meminfo": MEMINFO, **files}))
    assert (seen.total_bytes, seen.available_bytes, seen.bound) == (total, left, bound)


def test_version_1_says_no_limit_by_a_large_number(tmp_path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "4:memory:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
    }
    assert memory.read(tree(tmp_path, files)).bound == "machine"


@pytest.mark.parametrize(
    "junk", ["", "max", "nonsense\n", "MemTotal:\n", "\xff", "MemAvailable: x"]
)
def test_what_cannot_be_read_is_left_out(tmp_path, junk) -> None:
    names = ("proc/meminfo", "proc/self/cgroup", "proc/pressure/memory", "sys/fs/cgroup/memory.max")
    seen = memory.read(tree(tmp_path, dict.fromkeys(names, junk)))
    assert seen.total_bytes > 0
    assert seen.available_bytes is None


def test_pressure_is_noticed_of_the_machine_and_of_the_group(tmp_path) -> None:
    calm = "some avg10=80.00 avg60=0 avg300=0 total=5\nfull avg10=9.99 avg60=90 avg300=90 total=9\n"
    files = {"proc/meminfo": MEMINFO, "proc/pressure/memory": calm, "proc/self/cgroup": "0::/\n"}
    seen = memory.read(tree(tmp_path, files))
    assert (seen.stalled_percent, seen.short) == (9.99, False)
    own = {"sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.pressure": "full avg10=33.50 "}
    seen = memory.read(tree(tmp_path, own))
    assert (seen.stalled_percent, seen.short) == (33.5, True)


def test_this_machine_is_read() -> None:
    seen = memory.read()
    assert seen.available_bytes is not None
    assert 0 < seen.available_bytes <= seen.total_bytes
    assert hardware.ram_bytes() == seen.total_bytes


def test_a_32nd_part_stays_free_within_bounds() -> None:
    assert [Memory(each * 2**20, 0).reserve_bytes // 2**20 for each in (64, 1024, 65536)] == [
        16, 32, 256,
    ]  # fmt: skip


def needing(data: bytes, ram_bytes: int):
    manifest = bundles.read(data).manifest
    return replace(manifest, runtime=replace(manifest.runtime, ram_bytes=ram_bytes))


def test_what_fits_to_the_byte_is_let_in_and_one_more_is_not(tiny_bundle) -> None:
    manifest = needing(tiny_bundle(), 100 * MB)
    total = 1024 * 2**20
    memory.room(manifest, Memory(total, 100 * MB + 32 * 2**20))
    with pytest.raises(NoRoom) as refused:
        memory.room(manifest, Memory(total, 100 * MB + 32 * 2**20 - 1, "/sys/fs/cgroup/x"))
    assert isinstance(refused.value, MachineFault)
    assert refused.value.what == (
        f"{manifest.name} {manifest.version} would not fit into memory: it takes about 100 MB, "
        "134 MB are available within the limit of /sys/fs/cgroup/x, of which 33.6 MB stay free"
    )
    assert "serve fewer models" in refused.value.advice


def test_a_measurement_that_is_over_the_estimate_counts(tiny_bundle) -> None:
    manifest = needing(tiny_bundle(), 10 * MB)
    small = Memory(512 * 2**20, 60 * MB)
    memory.room(manifest, small)
    with pytest.raises(NoRoom, match="about 50 MB"):
        memory.room(manifest, small, measured_bytes=50 * MB)


def test_where_nothing_is_known_nothing_is_refused(tiny_bundle) -> None:
    memory.room(needing(tiny_bundle(), 2**50), Memory(0, None))


def test_a_file_that_would_not_fit_is_refused_before_it_is_loaded(tiny_bundle) -> None:
    """Its model is no model: had it been looked at, that would be the complaint."""
    sound = bundles.read(tiny_bundle())
    broken = dataclasses.replace(
        sound,
        manifest=needing(tiny_bundle(), 2**50),
        stored=dict.fromkeys(sound.stored, b"junk"),
    )
    with pytest.raises(NoRoom, match="would not fit into memory"):
        Model.from_bundle(broken)
