"""A server over a pipe, written by hand, of some kind of badness: `piped_raw.py KIND LOG`. What it gets goes to LOG."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TextIO

KIND, LOG = sys.argv[1], Path(sys.argv[2])
RESULT = {"content": [{"type": "text", "text": "done"}], "resultType": "complete"}
LISTED = {"tools": [{"name": "act", "inputSchema": {"type": "object"}}], "resultType": "complete"}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "raw", "version": "1"}}
MODERN = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
CACHED = {"ttlMs": 0, "cacheScope": "private"}


def say(message: Any) -> None:
    sys.stdout.write((message if isinstance(message, str) else json.dumps({"jsonrpc": "2.0", **message})) + "\n")
    sys.stdout.flush()


def act(request: Any, log: TextIO) -> None:
    match KIND:
        case "chatty":
            say("this is no JSON")
            say({"id": "nobody's", "result": RESULT})
            say({"method": "notifications/progress", "params": {"progressToken": "nobody's", "progress": 1}})
            say({"id": str(request["id"]), "result": RESULT})
        case "slow":
            pass
        case "endless":
            sys.stdout.write("x" * 2_000_000)
            sys.stdout.flush()
        case "flood":
            for n in range(3_000):
                say({"method": "notifications/message", "params": {"level": "info", "data": f"{n}" + "x" * 10_000}})
            log.write(json.dumps({"method": "flooded"}) + "\n")
            log.flush()
        case "burst":
            token = request["params"]["_meta"]["progressToken"]
            for n in range(5_000):
                message = {"method": "notifications/progress", "params": {"progressToken": token, "progress": n}}
                sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            say({"id": request["id"], "result": RESULT})
        case "deaf":
            os.close(0)
            say({"id": request["id"], "result": RESULT})
            time.sleep(60)
        case "survived" | "haunted":  # by another process, which has its stdout
            does = ["sleep", "60"] if KIND == "survived" else ["yes", "x" * 20_000]
            other = subprocess.Popen(does, stderr=subprocess.DEVNULL)
            log.write(json.dumps({"method": other.pid}) + "\n")
            log.flush()
            time.sleep(0.2 if KIND == "haunted" else 0)  # till that one talks
            os.kill(os.getpid(), signal.SIGKILL)
        case "foreign":
            sys.stdout.buffer.write('{"jsonrpc": "2.0", "method": "notifications/h\u00e9"}\n'.encode())
            sys.stdout.buffer.flush()
            say({"id": request["id"], "result": RESULT})
        case _:
            say({"id": request["id"], "result": RESULT})


def answer(request: Any, log: TextIO) -> None:
    match request.get("method"):
        case "server/discover":
            if KIND == "mute":
                return
            if KIND == "touchy":
                sys.exit("what is that?")
            say({"id": request["id"], "result": MODERN | CACHED})
        case "initialize":
            say({"id": request["id"], "result": HELLO})
        case "tools/list" if KIND == "vast":
            say("x" * 200_000)
        case "tools/list":
            say({"id": request["id"], "result": LISTED | CACHED})
        case "tools/call":
            act(request, log)
        case _:
            pass


if __name__ == "__main__":
    if KIND == "stillborn":
        sys.exit("no such option")
    if KIND == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with LOG.open("a") as log:
        log.write(json.dumps({"method": os.getpid()}) + "\n")
        log.flush()
        for line in sys.stdin:
            log.write(line)
            log.flush()
            answer(json.loads(line), log)
        while KIND == "stubborn":
            time.sleep(1)
