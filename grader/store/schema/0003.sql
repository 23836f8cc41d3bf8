-- Time on task: a stretch of work on a kata or in a hunt, whose `key` is that of its card. It
-- ended at `at`, when the file was saved or the tool used.
CREATE TABLE work (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    at TEXT NOT NULL,
    seconds REAL NOT NULL
);

CREATE INDEX work_by_key ON work (key);

-- The time on task in its round until then. NULL where that was not measured yet: what the clock
-- showed counts then.
ALTER TABLE attempts ADD COLUMN worked_s REAL;
