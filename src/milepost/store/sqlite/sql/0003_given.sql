-- min_reader: 1
-- Which release new runs of a tool are given to; `*` stands for every tool without rows of its own.

CREATE TABLE given (
    tool TEXT NOT NULL,
    release TEXT NOT NULL,
    weight REAL NOT NULL CHECK (weight > 0),
    PRIMARY KEY (tool, release)
) STRICT, WITHOUT ROWID;
