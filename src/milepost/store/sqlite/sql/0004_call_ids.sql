-- min_reader: 1
-- Runs by the call id that their caller gave them, for as long as they are kept (`run_rival` leaves out what was confirmed).

CREATE INDEX run_call_id ON run (call_key) WHERE scope = 'call id';
