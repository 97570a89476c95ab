#!/usr/bin/env bash
# Run a command with its temporary files in memory, where the system has room for them there: in-memory.sh COMMAND...
# The tests end processes, not machines, so they prove the same there, and need not wait for a disk at each commit.
# Elsewhere (macOS, a container with little shared memory, TMPDIR given by whoever calls) the files go where they always go.
set -euo pipefail

ROOM=6000000 # KiB: two PostgreSQL servers with their logs, and what the tests write

free=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }') || free=0
if [ -n "${TMPDIR:-}" ] || [ "${free:-0}" -lt "$ROOM" ]; then
    exec "$@"
fi
place=$(mktemp -d /dev/shm/milepost-XXXX)
trap 'rm -rf "$place"' EXIT
chmod 711 "$place" # PostgreSQL runs as another user where we are root
TMPDIR=$place "$@"
