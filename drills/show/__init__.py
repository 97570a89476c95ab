"""`make demo-replicas`: a crowd talks to the travel assistant through a load balancer, while its replicas are killed.

Nothing is staged: a real PostgreSQL, three real `milepost serve` processes, a balancer without affinity, SIGKILL, and
at the end a proof that is read back from the database, from what the clients heard, and from the booking system's own
ledger. If a proof fails, so does the command.

- `travellers.py` the crowd: who they are, what they answer
- `stage.py`      PostgreSQL, the replicas, the balancer
- `proof.py`      what must hold
- `telling.py`    how it looks on a terminal
- `story.py`      what happens, from the first line to the verdict
"""
