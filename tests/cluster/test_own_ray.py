"""The private folder of a Ray of our own: short, where there is room, and removed once nobody holds its lock."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import pcl.cluster.connection  # noqa: F401  # before ray
from pcl.cluster import own_ray
from pcl.errors import RunFailedError
from tests.typed import ROOT

SOCKET = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
END = "import os; from pcl.cluster.own_ray import private_folder; print(private_folder(), flush=True); "


def made_by(code, base):
    """Return the folder that a process makes before it does something."""
    done = subprocess.run(
        [sys.executable, "-c", END + code],
        cwd=ROOT,
        env=os.environ | {"RAY_TMPDIR": str(base)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Path(done.stdout.strip())


def test_what_a_killed_process_left_is_removed_by_the_next_and_nothing_else(tmp_path):
    base = Path(f"/tmp/p{os.getpid()}")
    base.mkdir()
    try:
        for name in ("pcl-ray-notes", "pcl-data"):
            (base / name).mkdir()
            (base / name / "mine").write_text("of the user")
        left = made_by(f"(private_folder() / 'ray').mkdir(); os.kill(os.getpid(), {signal.SIGKILL})", base)
        assert (left / "ray").is_dir()
        kept = made_by("from pcl.cluster.own_ray import keep_logs; keep_logs()", base)
        assert not left.exists()
        assert [path.name for path in kept.iterdir()] == ["pcl-lock"]
        code = (
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {END!r}], stdout=subprocess.DEVNULL); "
            "print(private_folder().is_dir())"
        )
        assert str(made_by(code, base)).endswith("True"), "another's folder was removed while it lived"
        assert sorted(path.name for path in base.iterdir()) == ["pcl-data", "pcl-ray-notes"]
    finally:
        shutil.rmtree(base)


def test_logs_that_people_were_told_of_stay_for_a_day(tmp_path):
    for name, age_s in (("pcl-ray-recently", 3600), ("pcl-ray-longpast", 2 * own_ray.KEPT_S)):
        (tmp_path / name / "logs").mkdir(parents=True)
        (tmp_path / name / own_ray.LOCK).touch()
        (tmp_path / name / "ray").mkdir()
        then = time.time() - age_s
        os.utime(tmp_path / name / "logs", (then, then))
    own_ray._remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pcl-ray-recently"]
    assert sorted(path.name for path in (tmp_path / "pcl-ray-recently").iterdir()) == ["logs", own_ray.LOCK]


def test_a_folder_without_a_lock_is_removed_if_it_is_old_and_holds_nothing_but_rays(tmp_path):
    """What processes of a killed Ray wrote once more after the folder was removed, and one killed before it locked."""
    names = {"pcl-ray-rewritte": "ray", "pcl-ray-emptyfol": None, "pcl-ray-youngest": "ray", "pcl-ray-somebody": "mine"}
    for name, content in names.items():
        (tmp_path / name).mkdir()
        if content:
            (tmp_path / name / content).mkdir()
        if name != "pcl-ray-youngest":
            os.utime(tmp_path / name, (0, 0))
    own_ray._remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pcl-ray-somebody", "pcl-ray-youngest"]


def test_what_has_only_begun_to_be_rays_ends_too(tmp_path):
    """A process of a killed Ray that has no file open yet would write into the folder after it is removed."""
    folder = tmp_path / "pcl-ray-12345678"
    (folder / "ray").mkdir(parents=True)
    (folder / own_ray.LOCK).touch()
    code = f"import time; time.sleep(60); open({str(folder / 'ray' / 'late')!r}, 'w')"
    rays = Path(own_ray.ray.__file__).parent / "dashboard" / "agent.py"
    begun = [
        subprocess.Popen([sys.executable, "-c", code, rays, f"--session-dir={folder}/ray/session"]),
        subprocess.Popen([sys.executable, "-c", code, "notes.py", f"--session-dir={folder}/ray/session"]),
    ]
    try:
        own_ray._remove_leftovers(tmp_path)
        begun[0].wait(10)  # killed, and waited for already
        assert begun[1].poll() is None, "it is no process of Ray's"
        assert list(tmp_path.iterdir()) == []
    finally:
        for process in begun:
            process.kill()
            process.wait()


def test_what_is_written_while_a_folder_is_removed_is_removed_too(tmp_path):
    folder, over = tmp_path / "pcl-ray-12345678", threading.Event()
    (folder / "ray").mkdir(parents=True)
    (folder / own_ray.LOCK).touch()

    def write():
        for number in itertools.count():
            with contextlib.suppress(OSError):
                (folder / "ray" / str(number)).touch()
            time.sleep(0.0005)  # the others have their turn
            if over.is_set() and (number > 1_000_000 or not (folder / "ray").exists()):
                return

    writer = threading.Thread(target=write)
    writer.start()
    threading.Timer(0.1, over.set).start()
    own_ray._remove_all(folder)
    writer.join(timeout=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [5, own_ray.LONGEST_BASE, own_ray.LONGEST_BASE + 1, 200])
def test_folders_that_are_too_long_for_sockets_are_left_out(monkeypatch, length):
    name = "/" + "ä" * ((length - 1) // 2) + "x" * ((length - 1) % 2)
    assert len(os.fsencode(name)) == length
    monkeypatch.setenv("RAY_TMPDIR", name)
    bases = own_ray._bases()
    assert (Path(name) in bases) == (length <= own_ray.LONGEST_BASE)
    assert all(len(os.fsencode(base / "pcl-ray-12345678" / "ray" / SOCKET)) <= 107 for base in bases)


def test_where_there_is_no_room_anywhere_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(own_ray.shutil, "disk_usage", lambda base: SimpleNamespace(free=1))
    with pytest.raises(RunFailedError, match=r"/tmp: No space left on device.*: set RAY_TMPDIR to a folder"):
        own_ray.private_folder.__wrapped__()
