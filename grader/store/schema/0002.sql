-- What is remembered of one question, kata or bug hunt: `memory` is an FSRS card.
CREATE TABLE cards (key TEXT PRIMARY KEY, memory TEXT NOT NULL, due TEXT NOT NULL);

-- One sitting of `kata quiz`; `options` says which questions it asks.
CREATE TABLE quizzes (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    options TEXT NOT NULL,
    ended TEXT
);

-- A mock interview: `plan` is its paper, all that happens in it is an event.
CREATE TABLE interviews (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    plan TEXT NOT NULL,
    folder TEXT NOT NULL,
    ended TEXT
);

-- `clock_s` is the interview's own clock, which pauses stop.
CREATE TABLE interview_events (
    id INTEGER PRIMARY KEY,
    interview INTEGER NOT NULL REFERENCES interviews (id),
    at TEXT NOT NULL,
    clock_s REAL NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL
);

-- An answer is stored as it is given, before anything is revealed: line by line, with
-- `seconds` NULL until its end. `draw` is the seed of its numbers, `correct` NULL where
-- nothing was computed, `points` those ticked (JSON).
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    quiz INTEGER REFERENCES quizzes (id),
    interview INTEGER REFERENCES interviews (id),
    at TEXT NOT NULL,
    seconds REAL,
    draw INTEGER NOT NULL,
    text TEXT NOT NULL,
    correct INTEGER,
    points TEXT
);

-- A rating and the memory before it (NULL: the first), so that it can be taken back.
CREATE TABLE reviews (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    answer INTEGER REFERENCES answers (id),
    at TEXT NOT NULL,
    rating INTEGER NOT NULL,
    before TEXT,
    undone INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX answers_by_key ON answers (key);
CREATE INDEX events_by_interview ON interview_events (interview);
