"""Runs one program and its tests under limits: a script that `sandbox` starts, of the standard library alone.

It reads a job {"token", "code", "tests", "seconds", "memory"} as JSON from its input, locks itself in, and writes lines
"token ready", "token passed 3" or "token refused why" to its output. What the program prints goes nowhere.
"""

import _thread
import ast
import ctypes
import json
import math
import os
import resource
import sys
import types

NOBODY = 65534
NEW_NETWORK, NEW_USER = 0x40000000, 0x10000000  # flags of unshare(2)
KEEP_CAPABILITIES, NO_NEW_PRIVILEGES, DIE_WITH_PARENT = 8, 38, 1  # prctl(2)
READ_ANY_FILE = 1 << 2  # CAP_DAC_READ_SEARCH
FILE_BYTES, FILES = 1 << 20, 64  # of each file written, and how many may be made
REFUSED = (
    "socket.", "ctypes.", "subprocess.", "pty.", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.fork",
    "os.kill", "signal.pthread_kill",
)  # fmt: skip
# Event -> (places of paths among its arguments, places of the open folders that these are relative to).
CHANGES = {
    "os.remove": ((0,), (1,)),
    "os.rmdir": ((0,), (1,)),
    "os.mkdir": ((0,), (2,)),
    "os.rename": ((0, 1), (2, 3)),
    "os.link": ((0, 1), (2, 3)),
    "os.symlink": ((1,), (2,)),
    "os.chmod": ((0,), (2,)),
    "os.chown": ((0,), (3,)),
    "os.utime": ((0,), (3,)),
    "os.truncate": ((0,), ()),
}
MAKES = ("os.mkdir", "os.link", "os.symlink")


def main() -> None:
    """Reads the job, runs it and reports each test that passed as soon as it has."""
    job = json.loads(sys.stdin.buffer.read())
    output, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    report = lambda line: os.write(output, f"{job['token']} {line}\n".encode())
    try:
        limit(math.ceil(job["seconds"]), job["memory"] << 20)
    except OSError as error:
        report(f"refused {error}")
        return
    sys.addaudithook(guard(os.getcwd()))
    report("ready")
    # A module of its own, found by dataclasses, enums and pickle; not __main__: a script's own run is not wanted.
    space = sys.modules["solution"] = types.ModuleType("solution")
    if not runs(job["code"], space):
        return
    for index, statement in enumerate(ast.parse(job["tests"]).body):
        if runs(ast.unparse(statement), space) and isinstance(statement, ast.Assert):
            report(f"passed {index}")


def runs(code: str, space: types.ModuleType) -> bool:
    """Whether code ends without an exception, an exit among them."""
    try:
        exec(compile(code, "<code>", "exec"), space.__dict__)
    except BaseException:  # noqa: BLE001 (whatever the program raises is its failure)
        return False
    return True


def limit(seconds: int, memory: int) -> None:
    """Gives up network, rights, further processes and threads, and bounds the rest.

    Raises: OSError where the kernel does not grant it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # Only root may have one without a new user namespace; either may be forbidden, and the hook stands alone then.
    if libc.unshare(NEW_NETWORK):
        libc.unshare(NEW_USER | NEW_NETWORK)
    if os.geteuid() == 0:
        _leave_root(libc)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc.prctl(DIE_WITH_PARENT, 9, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    try:  # root's processes are never counted, so see that the limit holds
        _thread.start_new_thread(int, ())
    except RuntimeError:
        pass
    else:
        raise OSError("the kernel does not limit this user's processes; run as another user")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _leave_root(libc: ctypes.CDLL) -> None:
    """Becomes nobody, who owns the folder and may read any file (the standard library may lie in root's), no more."""
    os.chown(".", NOBODY, NOBODY)
    libc.prctl(KEEP_CAPABILITIES, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: low words, then high words
    libc.capget(header, sets)
    kept = sets[1] & READ_ANY_FILE
    if libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)):
        raise OSError(ctypes.get_errno(), "cannot give up root's rights")


def guard(home: str):
    """An audit hook that refuses sockets, programs, signals and foreign memory, and files outside of `home`.

    home: the folder in which files may be made and changed; the standard library, time zones and devices may be read.
    """
    home = os.path.realpath(home)
    readable = (home, os.path.dirname(os.path.realpath(os.__file__)), "/usr/share/zoneinfo", "/dev")
    made = 0

    def beneath(path, folders, descriptor=-1) -> bool:
        if isinstance(path, int):  # open already
            return True
        base = f"/proc/self/fd/{descriptor}" if descriptor >= 0 else "."
        real = os.path.realpath(os.path.join(base, os.fsdecode(path)))
        return any(real == folder or real.startswith(folder + "/") for folder in folders)

    def allowed(event: str, args: tuple) -> bool:
        nonlocal made
        if event == "open":
            path, _, flags = args
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            made += bool(writes)
            # The event does not tell which open folder a path is relative to: none may climb.
            climbs = not isinstance(path, int) and ".." in os.fsdecode(path).split("/")
            within = beneath(path, (home, "/dev/null") if writes else readable)
            return within and not climbs and made <= FILES
        if event in CHANGES:
            made += event in MAKES
            paths, folders = CHANGES[event]
            opened = [args[k] for k in folders] or [-1]
            return made <= FILES and all(
                beneath(args[p], (home,), d) for p, d in zip(paths, opened, strict=True)
            )
        return not event.startswith(REFUSED)

    def hook(event: str, args: tuple) -> None:
        if not allowed(event, args):
            raise PermissionError(f"{event} is not allowed here")

    return hook


if __name__ == "__main__":
    main()
