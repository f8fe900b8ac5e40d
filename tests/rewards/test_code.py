"""Generated code: how much of it passes, and that nothing of it gets out."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rmjax.errors import UserError
from rmjax.rewards import code, sandbox

ONE = "assert True"


def scores(programs, tests=ONE, **options):
    options = {"seconds": 5.0} | options
    return code.unit_tests(programs, [tests] * len(programs), allow_code=True, **options)


def test_nothing_runs_unless_it_is_allowed(tmp_path):
    with pytest.raises(UserError, match=r"write unit_tests\(allow_code=True\)"):
        code.unit_tests(["x = 1"], [ONE])


def test_the_share_of_tests_passed():
    tests = "import math\nexpected = 4\nassert f(1) == 1\nassert f(2) == expected\nassert f(3) == math.pow(3, 2)"
    programs = [
        "def f(x): return x * x",
        "Sure:\n```python\ndef f(x): return 1\n```\nno:\n```python\ndef f(x): return x * x * (x < 3)\n```\nDone.",
        "def f(x): return x if x < 3 else 1 / 0",
        "def f(x) return x",
        "def g(x): return x",
        "def f(x): return x * x\n1 / 0",
        "",
        "\x00",
    ]
    got = scores(programs, tests)
    np.testing.assert_allclose(got, [1, 2 / 3, 1 / 3, 0, 0, 0, 0, 0])


def test_what_passed_before_an_endless_loop_counts():
    loops = "def f(x):\n    while x: pass\n    return 0"
    start = time.perf_counter()
    got = scores([loops], "assert f(0) == 0\nassert f(1) == 0\nassert f(0) == 0", seconds=1.0)
    np.testing.assert_allclose(got, [1 / 3])
    assert time.perf_counter() - start < 6


def test_the_standard_library_is_there():
    program = """
import asyncio, collections, dataclasses, datetime, decimal, enum, json, math, random, re, statistics, tempfile, typing
import zoneinfo

@dataclasses.dataclass
class Point:
    x: "int"

class Color(enum.Enum):
    RED = 1

with open("mine.txt", "w") as file:
    file.write("x")
with tempfile.TemporaryDirectory(dir=".") as folder:
    open(folder + "/a", "w").close()
"""
    np.testing.assert_array_equal(scores([program], "assert Point(1).x == Color.RED.value"), [1])


ESCAPES = {
    "a fork bomb": "import os\nwhile True: os.fork()",
    "a thread, which the kernel counts as it does processes": "import _thread\n_thread.start_new_thread(print, ())",
    "memory": "x = bytearray(1 << 30)",
    "memory bit by bit": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "a big file": "with open('big', 'wb') as f:\n    for _ in range(64): f.write(b'0' * (1 << 20)); f.flush()",
    "many files": "for i in range(1000):\n    open(str(i), 'w').close()",
    "folders in folders": "import os\nfor _ in range(1000):\n    os.mkdir('d'); os.chdir('d')",
    "a socket": "import socket\nsocket.socket()",
    "a connection": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9', timeout=1)",
    "a program": "import subprocess\nsubprocess.run(['/bin/true'])",
    "a shell": "import os\nif os.system('true'): raise OSError",
    "another program in its place": "import os\nos.execv('/bin/true', ['true'])",
    "a signal": "import os\nos.kill(os.getppid(), 0)",
    "foreign memory": "import ctypes\nctypes.CDLL(None)",
    "reading": "open('/etc/passwd')",
    "reading by a link": "import os\nos.symlink('/etc', 'e')\nopen('e/passwd')",
    "climbing": "import os\nhome = os.open('.', os.O_RDONLY)\nos.makedirs('a/b')\nos.chdir('a/b')\n"
    "os.open('../../etc', os.O_RDONLY, dir_fd=home)",
    "writing": "open('../x', 'w')",
    "removing": "import os\nos.rmdir('..')",
    "an exit": "raise SystemExit(0)",
    "a hard exit": "import os\nos._exit(0)",
    "a deep recursion": "f = lambda: f()\nf()",
    "the environment": "import os\nos.environ['PATH']",
}


def test_nothing_gets_out():
    start = time.perf_counter()
    got = scores(list(ESCAPES.values()))
    assert dict(zip(ESCAPES, got, strict=True)) == dict.fromkeys(ESCAPES, 0.0)
    assert time.perf_counter() - start < 15


def test_a_flood_of_output_ends_with_its_time_and_costs_no_memory_here():
    write = "os.write(fd, b'x' * (1 << 20))"
    flood = f"import os\nwhile True:\n    for fd in range(64):\n        try: {write}\n        except OSError: pass"
    start = time.perf_counter()
    np.testing.assert_array_equal(scores([flood, "while True: print('x' * 10**6)"], seconds=1.0), [0, 0])  # fmt: skip
    assert time.perf_counter() - start < 6


def test_reports_without_the_token_do_not_count():
    forged = "import os\nfor fd in range(64):\n    try: os.write(fd, b'ready\\npassed 0\\n')\n    except OSError: pass"
    np.testing.assert_array_equal(scores([forged], "assert False"), [0])


def test_the_kernel_keeps_the_network_away_where_it_has_namespaces(tmp_path):
    home = str(Path(sandbox.RUNNER).parent)

    def run(line):
        script = f"import sys; sys.path.append({home!r}); import ctypes, runner, socket; {line}"
        command = [sys.executable, "-I", "-S", "-c", script]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"socket.create_connection({server.getsockname()})"
        assert run(connect).returncode == 0
        namespaces = "assert ctypes.CDLL(None).unshare(runner.NEW_NETWORK | runner.NEW_USER) == 0"
        if run(namespaces).returncode:
            pytest.skip("this kernel forbids network namespaces; the hook alone stands")
        assert "unreachable" in run(f"runner.limit(5, 1 << 29); {connect}").stderr


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    scores(["import os\nos.mkdir('a')\nopen('a/b', 'w').close()\nos.chmod('a', 0)"])
    assert not list(tmp_path.iterdir()) and len(os.listdir("/proc/self/fd")) == before


def test_where_processes_cannot_be_contained_nothing_runs(tmp_path, monkeypatch):
    runner = Path(sandbox.RUNNER).read_text()
    lax = runner.replace("resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))", "pass")
    assert lax != runner
    (tmp_path / "runner.py").write_text(lax)
    monkeypatch.setattr(sandbox, "RUNNER", tmp_path / "runner.py")
    with pytest.raises(UserError, match="does not limit this user's processes"):
        scores(["x = 1"], seconds=4.0)  # no other test has these options: the trial is kept by them
    with pytest.raises(UserError, match="more than 0.001 s"):
        scores(["x = 1"], seconds=0.001)
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UserError, match="Linux"):
        scores(["x = 1"])


def test_references_without_tests_and_bad_options_are_refused():
    for reference in ("x = 1", "assert", "\x00"):
        with pytest.raises(ValueError, match="1 of 1 references are no Python with an assert"):
            scores(["x = 1"], reference)
    for options in ({"seconds": 0.0}, {"memory": 1}):
        with pytest.raises(ValueError, match="must be positive and memory"):
            scores(["x = 1"], **options)
