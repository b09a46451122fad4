"""What a process may use: made-up trees of cgroups, and the real limits of other processes."""

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import psutil
import pytest

from lwgan.data import threads
from lwgan.data.limits import Budget, free_memory, num_cores
from lwgan.runs import gpus
from tests.house import ROOT

V2 = "31 23 0:28 {root} /sys/fs/cgroup rw,nosuid shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "35 31 0:32 {root} /sys/fs/cgroup/{name} rw,relatime shared:9 - cgroup cgroup rw,{name}"
OTHER = "24 1 8:1 / /my\\040files rw - ext4 /dev/sda1 rw,memory"
# Bytes that the machine has free, and its cores.
MACHINE, CORES = 10**12, 64
GUARD = 20


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that writes mounts, the process's cgroups and files below a root."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=MACHINE))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(CORES), raising=False)

    def write(mounts, groups, files):
        proc = {"mountinfo": [OTHER, *mounts], "cgroup": groups}
        own = {f"proc/self/{name}": "".join(f"{row}\n" for row in proc[name]) for name in proc}
        for name, text in {**own, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def v2(folder, limit, used=0, reclaimable=0, high="max"):
    """A memory cgroup of version 2, below the root."""
    stat = f"anon 5\ninactive_anon 7\ninactive_file {reclaimable}\nactive_file 9\n"
    values = {"max": limit, "high": high, "current": used}
    return {f"{folder}/memory.{name}": f"{value}\n" for name, value in values.items()} | {
        f"{folder}/memory.stat": stat
    }


def v1(folder, limit, used=0, reclaimable=0):
    """A memory cgroup of version 1, below the root."""
    stat = f"inactive_file 1\ntotal_inactive_anon 7\ntotal_inactive_file {reclaimable}\n"
    values = {"limit": limit, "usage": used}
    return {f"{folder}/memory.{name}_in_bytes": f"{value}\n" for name, value in values.items()} | {
        f"{folder}/memory.stat": stat
    }


TOP, MEMORY = "sys/fs/cgroup", "sys/fs/cgroup/memory"
ALL_V2, ALL_V1 = V2.format(root="/"), V1.format(root="/", name="memory")
NO_LIMIT = 9223372036854771712


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "free"),
    [
        ([ALL_V2], ["0::/a"], v2(f"{TOP}/a", 1000, 300), 700),
        ([ALL_V2], ["0::/a"], v2(f"{TOP}/a", 1000, 300, reclaimable=200), 900),
        ([ALL_V2], ["0::/a"], v2(f"{TOP}/a", 1000, 300, high=500), 200),
        ([ALL_V2], ["0::/a"], v2(f"{TOP}/a", "max", 300, high=500), 200),
        ([ALL_V2], ["0::/a"], v2(f"{TOP}/a", "max", 300), MACHINE),
        ([ALL_V2], ["0::/a"], v2(f"{TOP}/a", 1000, "unknown"), MACHINE),
        # More in use than is allowed; more reclaimable than in use.
        ([ALL_V2], ["0::/a"], v2(f"{TOP}/a", 1000, 1300), 0),
        ([ALL_V2], ["0::/a"], v2(f"{TOP}/a", 1000, 100, reclaimable=200), 1000),
        # The parent allows least; a sibling does not count.
        (
            [ALL_V2],
            ["0::/a/b/c"],
            v2(f"{TOP}/a", 500, 100) | v2(f"{TOP}/a/b/c", 1000, 100) | v2(f"{TOP}/a/x", 5),
            400,
        ),
        # In a container that sees its own cgroup as the root.
        ([ALL_V2], ["0::/"], v2(TOP, 1000, 300), 700),
        # In one that sees the machine's paths, but its own cgroup only.
        ([ALL_V2], ["0::/docker/abc"], v2(TOP, 1000, 300), 700),
        ([V2.format(root="/docker/abc")], ["0::/docker/abc/d"], v2(f"{TOP}/d", 1000, 300), 700),
        ([V2.format(root="/../..")], ["0::/"], v2(TOP, 1000, 300), 700),
        ([ALL_V2], ["0::/../x"], v2(TOP, 1000, 300) | v2("sys/fs/x", 5), 700),
        # A second mount, of cgroups that this process is not in.
        (
            [V2.format(root="/other").replace(TOP, "mnt"), ALL_V2],
            ["0::/a"],
            v2("mnt", 5) | v2(f"{TOP}/a", 1000, 300),
            700,
        ),
        (
            [ALL_V2.replace(TOP, "my\\040groups")],
            ["0::/a b:c"],
            v2("my groups/a b:c", 1000, 300),
            700,
        ),
        ([ALL_V1], ["4:memory:/a", "1:cpu:/b"], v1(f"{MEMORY}/a", 1000, 300, 200), 900),
        ([ALL_V1], ["4:cpu,memory:/a"], v1(f"{MEMORY}/a", 1000, 300), 700),
        ([ALL_V1], ["4:memory:/a"], v1(f"{MEMORY}/a", NO_LIMIT, 300), MACHINE),
        ([ALL_V1], ["4:memory:/a"], v1(MEMORY, 800, 300) | v1(f"{MEMORY}/a", 1000, 300), 500),
        (
            [V1.format(root="/docker/abc", name="memory")],
            ["4:memory:/docker/abc"],
            v1(MEMORY, 1000, 300),
            700,
        ),
        # Both versions, one of which has the controller, or each with a limit.
        (
            [ALL_V2.replace(TOP, f"{TOP}/unified"), ALL_V1],
            ["4:memory:/a", "0::/b"],
            {f"{TOP}/unified/b/cgroup.procs": ""} | v1(f"{MEMORY}/a", 1000, 300),
            700,
        ),
        (
            [ALL_V1, ALL_V2],
            ["4:memory:/a", "0::/b"],
            v1(f"{MEMORY}/a", 1000, 300) | v2(f"{TOP}/b", 600),
            600,
        ),
        # Another controller's.
        ([V1.format(root="/", name="pids")], ["4:pids:/"], v1(f"{TOP}/pids", 5), MACHINE),
    ],
)
def test_free_memory(machine, mounts, groups, files, free):
    assert free_memory(machine(mounts, groups, files)) == free


def test_the_machine_may_have_less_than_the_group(machine):
    root = machine([ALL_V2], ["0::/a"], v2(f"{TOP}/a", 2 * MACHINE, 300))
    assert free_memory(root) == MACHINE


@pytest.mark.parametrize("odd", ["", "\n", "lots", "-1", "9" * 5000, "12 13 14", "1e9", "\0", "²"])
def test_what_is_odd_does_not_count(machine, odd):
    files = {name: odd for name in v2(f"{TOP}/a", 1000)} | {f"{TOP}/a/cpu.max": odd}
    root = machine([ALL_V2], ["0::/a"], files)
    assert (free_memory(root), num_cores(root)) == (MACHINE, CORES)


@pytest.mark.parametrize("name", ["mountinfo", "cgroup"])
@pytest.mark.parametrize("odd", ["", "\0:\n:::\n", "31 23 0:28\n0:\n", "- cgroup2\n"])
def test_odd_files_of_the_process(machine, name, odd):
    files = {f"proc/self/{name}": odd} | v2(f"{TOP}/a", 1000, 300)
    assert free_memory(machine([ALL_V2], ["0::/a"], files)) == MACHINE


def test_what_cannot_be_read_does_not_count(machine, tmp_path):
    """A directory cannot, even as root."""
    for name in "max", "current", "stat":
        (tmp_path / TOP / f"a/b/memory.{name}").mkdir(parents=True)
    (tmp_path / TOP / "a/b/cpu.max").mkdir()
    root = machine([ALL_V2], ["0::/a/b"], v2(f"{TOP}/a", 1000, 300))
    assert (free_memory(root), num_cores(root)) == (700, CORES)


def test_any_bytes_in_the_name_of_another_mount(machine):
    root = machine([ALL_V2], ["0::/a"], v2(f"{TOP}/a", 1000, 300))
    path = root / "proc/self/mountinfo"
    path.write_bytes(OTHER.encode().replace(b"files", b"\xff\xfe") + b"\n" + path.read_bytes())
    assert free_memory(root) == 700


def test_without_proc(machine, tmp_path, monkeypatch):
    assert (free_memory(tmp_path), num_cores(tmp_path)) == (MACHINE, CORES)

    def hidden():
        raise PermissionError("/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", hidden)
    assert free_memory(tmp_path) == 0
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert num_cores(tmp_path) == 1


CPU_V1 = V1.format(root="/", name="cpu,cpuacct")


def quota_v1(folder, quota):
    folder = f"{TOP}/cpu,cpuacct{folder}"
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "cores"),
    [
        ([ALL_V2], ["0::/a"], {f"{TOP}/a/cpu.max": "max 100000\n"}, CORES),
        ([ALL_V2], ["0::/a"], {f"{TOP}/a/cpu.max": "200000 100000\n"}, 2),
        ([ALL_V2], ["0::/a"], {f"{TOP}/a/cpu.max": "200001 100000\n"}, 3),
        ([ALL_V2], ["0::/a"], {f"{TOP}/a/cpu.max": "1000 100000\n"}, 1),
        ([ALL_V2], ["0::/a"], {f"{TOP}/a/cpu.max": "0 100000\n"}, 1),
        ([ALL_V2], ["0::/a"], {f"{TOP}/a/cpu.max": "1000 0\n"}, CORES),
        ([ALL_V2], ["0::/a"], {f"{TOP}/a/cpu.max": "99900000 100000\n"}, CORES),
        (
            [ALL_V2],
            ["0::/a/b"],
            {f"{TOP}/a/cpu.max": "300000 100000", f"{TOP}/a/b/cpu.max": "500000 100000"},
            3,
        ),
        ([CPU_V1], ["1:cpu,cpuacct:/a"], quota_v1("/a", 150000), 2),
        ([CPU_V1], ["1:cpu,cpuacct:/a"], quota_v1("/a", -1) | quota_v1("", 400000), 4),
        ([CPU_V1], ["1:cpuacct:/a", "2:cpuset:/a"], quota_v1("/a", 150000), CORES),
    ],
)
def test_num_cores(machine, mounts, groups, files, cores):
    assert num_cores(machine(mounts, groups, files)) == cores


def said_by(code):
    """What another process prints, which can be limited without harm."""
    before = (
        "import mmap, os, psutil, resource\nfrom lwgan.data.limits import free_memory, num_cores\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", before + code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(ended.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(("limit", "used"), [("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")])
def test_limits_of_the_process(limit, used):
    allowed = 64 * 2**20
    code = f"""
# Is of the size of the process, but none of its data.
shared = mmap.mmap(-1, {2 * allowed})
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
limit = int(status["{used}"].split()[0]) * 1024 + {allowed}
resource.setrlimit(resource.{limit}, (limit, limit))
print(free_memory())
"""
    assert allowed / 2 < said_by(code) <= allowed


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs processor affinity")
def test_affinity():
    code = "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\nprint(num_cores())"
    assert said_by(code) == 1


class Asker:
    """A thread that holds bytes of a budget until it is told to leave."""

    def __init__(self, budget, size, entered):
        self.inside, self.leave = threading.Event(), threading.Event()
        waiting = len(budget._waiting)

        def hold():
            with budget.of(size):
                entered.append(size)
                self.inside.set()
                self.leave.wait(GUARD)

        self.thread = threading.Thread(target=hold, daemon=True)
        self.thread.start()
        # Until it is in, or has been told to wait.
        while not self.inside.is_set():
            with budget._changed:
                if len(budget._waiting) > waiting:
                    break

    def finish(self):
        self.leave.set()
        self.thread.join(GUARD)


def test_never_more_than_the_total_together():
    budget, entered = Budget(10), []
    first, second = Asker(budget, 4, entered), Asker(budget, 6, entered)
    third = Asker(budget, 1, entered)
    assert entered == [4, 6] and not third.inside.is_set()
    first.finish()
    assert third.inside.wait(GUARD)
    second.finish()
    third.finish()


def test_what_is_larger_than_the_total_goes_alone():
    budget, entered = Budget(10), []
    small = Asker(budget, 1, entered)
    large = Asker(budget, 11, entered)
    assert not large.inside.is_set()
    small.finish()
    assert large.inside.wait(GUARD)
    other = Asker(budget, 1, entered)
    assert not other.inside.is_set()
    large.finish()
    assert other.inside.wait(GUARD)
    other.finish()


def test_who_asks_first_is_served_first():
    """Else small images could keep a large one waiting for ever."""
    budget, entered = Budget(10), []
    first = Asker(budget, 6, entered)
    large, small = Asker(budget, 8, entered), Asker(budget, 3, entered)
    assert entered == [6]
    first.finish()
    assert large.inside.wait(GUARD)
    assert not small.inside.is_set()
    large.finish()
    assert small.inside.wait(GUARD)
    small.finish()
    assert entered == [6, 8, 3]


def test_who_waits_is_asked_again_each_time_that_bytes_come_back():
    budget, entered = Budget(10), []
    first, second = Asker(budget, 5, entered), Asker(budget, 5, entered)
    large, small = Asker(budget, 8, entered), Asker(budget, 1, entered)
    first.finish()
    assert entered == [5, 5]
    second.finish()
    assert large.inside.wait(GUARD) and small.inside.wait(GUARD)
    large.finish()
    small.finish()


def test_several_that_wait_enter_together():
    budget, entered = Budget(10), []
    first = Asker(budget, 10, entered)
    others = [Asker(budget, 5, entered) for _ in range(2)]
    first.finish()
    assert all(other.inside.wait(GUARD) for other in others)
    for other in others:
        other.finish()


def test_an_error_gives_its_bytes_back():
    budget, entered = Budget(10), []
    with pytest.raises(OSError), budget.of(10):
        raise OSError
    after = Asker(budget, 10, entered)
    assert after.inside.wait(GUARD)
    after.finish()


@pytest.fixture
def hide_gpus():
    gpus.leave_gpus_to_jax.cache_clear()
    yield
    gpus.leave_gpus_to_jax.cache_clear()


def test_tensorflow_with_a_gpu_is_warned_of_once(monkeypatch, caplog, hide_gpus):
    import numpy as np
    import tensorflow as tf

    def too_late(devices, kind):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", too_late)
    for _ in range(2):
        arrays = threads.parallel_map(lambda number: np.full(2, number, np.uint8), range(3), -1)
        assert [int(array[0]) for array in arrays] == [0, 1, 2]
    assert caplog.text.count("cannot be modified") == 1


def test_a_negative_number_of_threads_is_one_for_each_core(monkeypatch):
    """As many calls meet at a barrier; with fewer threads none would pass."""
    import numpy as np

    monkeypatch.setattr(threads, "num_cores", lambda: 2)
    barrier = threading.Barrier(2)

    def meet(number):
        barrier.wait(GUARD)
        return np.full(1, number, np.uint8)

    assert [int(array[0]) for array in threads.parallel_map(meet, range(4), -1)] == [0, 1, 2, 3]
