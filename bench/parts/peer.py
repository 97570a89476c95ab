"""The SDK's own transport under uvicorn, with the loop and the parser that Milepost uses:
`python peer.py PORT`. Or, with `--stdio`, over a pipe.
"""

from __future__ import annotations

import sys

import uvicorn
from tools import mcp

if __name__ == "__main__" and sys.argv[1] == "--stdio":
    mcp.run()
elif __name__ == "__main__":
    app = mcp.streamable_http_app()
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, loop="uvloop", http="httptools")
