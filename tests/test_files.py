"""Files: whole or not at all, on a full disk and in folders that cannot be written."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from aigc_sdk.errors import InvalidRequest, Refused, StorageError
from aigc_sdk.files import atomic_pair, atomic_write, cache_folder, make_folder, remove_unused, write_bytes

# A disk that is full after 100,000 bytes, for this process.
FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
"""


def remove_home(monkeypatch):
    """Leave the user without a home folder and without a name for the cache."""
    pwd = pytest.importorskip("pwd")
    for name in ("AIGC_SDK_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)


def run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_atomic_write_new_file_appears_whole_on_leaving(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == tmp_path
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_old_file_is_replaced(tmp_path):
    path = tmp_path / "file"
    path.write_text("a much longer old text")
    write_bytes(path, b"new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, Refused])
def test_atomic_write_failure_inside_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_nothing_written_raises_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(StorageError, match=r"Cannot write .*file: No such file"), atomic_write(path):
        pass
    assert path.read_text() == "old"


def test_atomic_write_longest_name_that_the_file_system_takes_works(tmp_path):
    path = tmp_path / ("x" * 255)
    write_bytes(path, b"data")
    assert path.read_bytes() == b"data"


def test_atomic_write_gives_the_rights_that_any_new_file_gets(tmp_path):
    write_bytes(tmp_path / "ours", b"")
    (tmp_path / "plain").touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")}
    assert len(modes) == 1


@pytest.mark.parametrize("place", ["missing/file", "a-file/file", "a-folder"])
def test_write_bytes_impossible_place_raises_and_leaves_nothing(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    Path("a-folder").mkdir()
    with pytest.raises(StorageError, match=r"^Cannot write "):
        write_bytes(place, b"data")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a-file", "a-folder"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_write_bytes_folder_that_nobody_can_write_raises():
    with pytest.raises(StorageError, match=r"Cannot write /proc/aigc"):
        write_bytes("/proc/aigc", b"data")
    with pytest.raises(StorageError, match=r"Cannot make /proc/aigc"):
        make_folder("/proc/aigc/deeper")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [("a" * 300, StorageError, "^Cannot (write|make) "), ("nul\0here", InvalidRequest, "is .*; give a path")],
)
def test_write_bytes_impossible_name_raises_in_few_words(tmp_path, name, error, message):
    with pytest.raises(error, match=message) as raised:
        write_bytes(tmp_path / name, b"data")
    assert len(str(raised.value)) < 500
    with pytest.raises(error, match=message):
        make_folder(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_write_bytes_into_a_folder_that_may_not_be_searched_raises():
    code = """
import os
import signal
from aigc_sdk.errors import StorageError
from aigc_sdk.files import make_folder, write_bytes
os.setuid(54321)
for act in (lambda: write_bytes(sys.argv[1] + "/file", b""), lambda: make_folder(sys.argv[1] + "/deeper")):
    try:
        act()
    except StorageError as error:
        print(error)
"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        locked = Path(folder, "locked")
        locked.mkdir(0o700)
        done = run_python("import sys" + code, locked)
    wanted = f"Cannot write {locked}/file: Permission denied.\nCannot make {locked}/deeper: Permission denied.\n"
    assert done.stdout == wanted, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs resource limits")
def test_write_bytes_full_disk_raises_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    code = """
from aigc_sdk.errors import StorageError
from aigc_sdk.files import write_bytes
write_bytes(sys.argv[1], bytes(99_999))
before = open(sys.argv[1], "rb").read()
try:
    write_bytes(sys.argv[1], bytes(100_001))
except StorageError as error:
    print(error, before == bytes(99_999))
"""
    done = run_python(FULL_DISK + code, path)
    assert done.stdout == f"Cannot write {path}: File too large. True\n", done.stderr
    assert path.read_bytes() == bytes(99_999)
    assert list(tmp_path.iterdir()) == [path]


def test_make_folder_makes_parents_and_takes_what_is_there(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"


@pytest.mark.parametrize("place", ["a-file", "a-file/folder"])
def test_make_folder_file_in_its_place_raises(tmp_path, place):
    (tmp_path / "a-file").touch()
    with pytest.raises(StorageError, match=r"Cannot make .*a-file"):
        make_folder(tmp_path / place)


def test_cache_folder_goes_by_the_variable_then_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("AIGC_SDK_CACHE", "here")
    assert cache_folder() == Path("here")
    monkeypatch.setenv("AIGC_SDK_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    expected = {"linux": tmp_path / ".cache" / "aigc_sdk", "darwin": tmp_path / "Library" / "Caches" / "aigc_sdk"}
    if sys.platform in expected:
        assert cache_folder() == expected[sys.platform]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == expected["darwin"]
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "local")
    assert cache_folder() == Path("local/aigc_sdk")


def test_cache_folder_without_a_home_folder_names_the_variable(monkeypatch):
    remove_home(monkeypatch)
    with pytest.raises(StorageError, match="There is no home folder to keep a cache in; name a folder in AIGC_SDK_CA"):
        cache_folder()


def test_remove_unused_goes_by_the_time_of_each_file(tmp_path):
    days = {"old": 31, "a/old": 31, "a/new": 29, "a/.left.tmp": 2, "a/.under-way.tmp": 0}
    (tmp_path / "a").mkdir()
    for name, age in days.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age * 86400,) * 2)
    os.utime(tmp_path / "a", (0, 0))
    remove_unused(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"a", "a/new", "a/.under-way.tmp"}
    remove_unused(tmp_path / "missing")


# ---------------------------------------------------------------- files that belong together

KILLED = """
import os, signal, sys
from pathlib import Path
from aigc_sdk import files

left = int(sys.argv[1])

def killed_before(step):
    def wrapped(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments, **options)
    return wrapped

for name in ("replace", "unlink"):
    setattr(Path, name, killed_before(getattr(Path, name)))
with files.atomic_pair("card", "model") as (card, model):
    model.write_text("new")
    card.write_text("new")
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_atomic_pair_killed_at_any_step_leaves_no_card_of_another_model(tmp_path):
    found = []
    for steps in range(4):
        for name in ("card", "model"):
            (tmp_path / name).write_text("old")
        done = subprocess.run([sys.executable, "-c", KILLED, str(steps)], cwd=tmp_path, check=False)
        assert done.returncode == (-signal.SIGKILL if steps < 3 else 0)
        found.append(tuple((tmp_path / name).read_text() if (tmp_path / name).exists() else None for name in NAMES))
    assert found == [("old", "old"), (None, "old"), (None, "new"), ("new", "new")]


NAMES = ("card", "model")


def test_atomic_pair_that_fails_leaves_what_was_there(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_text("old")
    with pytest.raises(StorageError), atomic_pair(tmp_path / "card", tmp_path / "model") as (card, _):
        card.write_text("new")  # and no model
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card", "model"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}
