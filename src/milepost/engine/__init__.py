"""The engine: attempts, replay, leases and timers over the seams. It decides; it knows no wire and no database."""
