-- A version of the learner's file. The same bytes twice in a row are one snapshot.
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY,
    slug TEXT NOT NULL,
    number INTEGER NOT NULL,
    source BLOB NOT NULL,
    sha256 TEXT NOT NULL,
    at TEXT NOT NULL,
    reason TEXT NOT NULL,
    UNIQUE (slug, number)
);

-- A round begins with a blank stub (`start`, `reset`) and ends with the next round.
-- `timed` is cleared when work from before the round is brought back into it.
CREATE TABLE rounds (
    id INTEGER PRIMARY KEY,
    slug TEXT NOT NULL,
    at TEXT NOT NULL,
    timed INTEGER NOT NULL DEFAULT 1
);

-- `seconds` is what grading took; `part` is NULL when the whole kata was graded.
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    slug TEXT NOT NULL,
    number INTEGER NOT NULL,
    round INTEGER REFERENCES rounds (id),
    snapshot INTEGER REFERENCES snapshots (id),
    at TEXT NOT NULL,
    seconds REAL NOT NULL,
    seed INTEGER NOT NULL,
    part TEXT,
    passed INTEGER NOT NULL,
    level TEXT NOT NULL,
    verdict BLOB NOT NULL,
    UNIQUE (slug, number)
);

CREATE TABLE hints_seen (
    id INTEGER PRIMARY KEY,
    slug TEXT NOT NULL,
    round INTEGER REFERENCES rounds (id),
    rung INTEGER NOT NULL,
    at TEXT NOT NULL
);

CREATE TABLE solutions_seen (
    id INTEGER PRIMARY KEY,
    slug TEXT NOT NULL,
    round INTEGER REFERENCES rounds (id),
    at TEXT NOT NULL
);

CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);

CREATE INDEX rounds_by_slug ON rounds (slug);
CREATE INDEX hints_by_slug ON hints_seen (slug);
