"""The drill of the client: both eras, three servers, faults at chosen places, and an outside ledger that counts."""
