"""A travel operations assistant: a small MCP server over its own data, as a team would write it.

- `data.py`    its SQLite file: tables, and a season of made-up flights that is the same on every machine
- `domain.py`  what can be asked of it, and what changes it; each change happens once per idempotency key
- `forms.py`   the questions to the user: bounded, and checked again when answered
- `letters.py` the letter to the traveller, by the client's model or by a template
- `server.py`  the MCP server: three stateless tools, three workflows, resources and prompts

`stateless_server.py` is the server that this one grew out of; `ROLLOUT.md` tells how.
"""
