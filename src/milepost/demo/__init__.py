"""The demo: an interactive tool loses its server twice in the middle of a conversation, on both protocol eras.

`milepost demo` (and `make demo`) tells it on the terminal. Nothing is staged: a real `milepost serve` process, the
official SDK's own client, SIGKILL, and at the end a proof that is read back from the store and from the travel
data's own ledger. If a proof fails, so does the command.

- `assistant.py` the server process: started, killed, started anew
- `traveller.py` the person at the client: answers questions, and notices when one comes twice
- `ledger.py`    what the booking system says was done to it
- `proof.py`     what must hold, checked over what was stored
- `telling.py`   how it looks on a terminal
- `story.py`     the two acts
"""
