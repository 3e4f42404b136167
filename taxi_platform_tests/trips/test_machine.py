"""Limits that fit the cores and the memory found, a container's too, on folders like those of control groups."""

import pytest

from taxi_platform.trips.machine import Machine, this_machine

GIB = 1024**3


@pytest.fixture
def found(tmp_path):
    """What a process in the group `own` finds, of groups with these files."""

    def look(files, own="/"):
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        (tmp_path / "self").write_text(f"1:name=systemd:/x\n0::{own}\n")
        return this_machine(tmp_path / "cgroup", tmp_path / "self")

    return look


def test_without_limits_it_is_the_machine(found, tmp_path):
    whole = this_machine(tmp_path / "none", tmp_path / "no file")
    assert whole.cores >= 1
    assert whole.memory > 100_000_000
    assert found({"cpu.max": "max 100000", "memory.max": "max"}) == whole


@pytest.mark.parametrize(
    ("quota", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("0 100000", 1), ("garbage", None), ("5", None)]
)
def test_a_containers_processor_time_is_counted_in_whole_cores(found, tmp_path, quota, cores):
    whole = this_machine(tmp_path / "none", tmp_path / "no file")
    assert found({"cpu.max": quota}).cores == (cores or whole.cores)


def test_the_smallest_limit_of_all_groups_from_the_own_to_the_root_counts(found):
    files = {
        "memory.max": "max",
        "system.slice/memory.max": str(90 * 1024**2),
        "system.slice/taxi.service/memory.max": str(100 * 1024**2),
        "user.slice/memory.max": str(10 * 1024**2),
    }
    assert found(files, "/system.slice/taxi.service").memory == 90 * 1024**2


@pytest.mark.parametrize(
    ("cores", "memory", "runs", "megabytes"),
    [
        (2, 16 * GIB, 4, 512),
        (2, 4 * GIB, 4, 512),
        (2, 2 * GIB, 2, 512),
        (1, 8 * GIB, 2, 512),
        (16, 64 * GIB, 8, 512),
        (4, 768 * 1024**2, 1, 368),
        (4, 256 * 1024**2, 1, 128),
    ],
)
def test_runs_at_a_time_and_the_engines_memory_fit(cores, memory, runs, megabytes):
    machine = Machine(cores, memory)
    assert (machine.runs, machine.engine_megabytes) == (runs, megabytes)
    assert machine.runs == 1 or machine.runs * 1024 * 1024**2 <= memory
