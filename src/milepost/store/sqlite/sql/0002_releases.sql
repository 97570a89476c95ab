-- min_reader: 1
-- What a replica is and may run, for the others to see; and the release that a run was given to.

ALTER TABLE replica ADD COLUMN release TEXT NOT NULL DEFAULT '';
ALTER TABLE replica ADD COLUMN accepts TEXT NOT NULL DEFAULT '[]';
ALTER TABLE run ADD COLUMN given_to TEXT NOT NULL DEFAULT '';
