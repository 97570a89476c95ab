-- min_reader: 1
-- The call id that the caller gave a run, as a digest with its owner; NULL where it gave none.

ALTER TABLE milepost.run ADD COLUMN call_id text COLLATE "C";
CREATE INDEX run_call_id ON milepost.run (call_id) WHERE call_id IS NOT NULL;
