"""`milepost connect URL`: a server here that is another server, elsewhere.

A host (a desktop assistant, an editor, the Inspector) speaks MCP with this process, over a pipe or HTTP, in whichever
era it knows. This process speaks with the remote server through `milepost.client`, in whichever era that knows, and
survives for the host what hosts don't: restarts, expired sessions, dropped streams, its own death.

It is a composition of what Milepost has already. The remote's mirror is a low-level `Server` of the SDK that forwards
everything, and Milepost hosts it: so the questions of a call reach the host as those of any hot tool do, on both eras.
See docs/connect.md and docs/decisions/0015.
"""
