-- What a run was asked for and found beside submissions, each as JSON: the keys are the sections'.
CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- One row a person and kata. `number` is its place in the latest run, NULL if it is not in that.
-- `file` is empty where nothing was handed in; `trouble` says why there is nothing to judge.
-- `basis` stands for all of the grader that decides its verdict; `seeds` are those to grade it
-- with, as JSON; `refused` says why it could not be judged.
CREATE TABLE submissions (
    id INTEGER PRIMARY KEY,
    number INTEGER,
    who TEXT NOT NULL,
    slug TEXT NOT NULL,
    file TEXT NOT NULL,
    sha256 TEXT,
    source BLOB,
    trouble TEXT,
    basis TEXT NOT NULL,
    seeds TEXT NOT NULL,
    refused TEXT,
    UNIQUE (who, slug)
);

-- `verdict` is the object that `kata run --json` prints; `boxed` is 0 without the sandbox.
CREATE TABLE gradings (
    submission INTEGER NOT NULL REFERENCES submissions (id),
    seed INTEGER NOT NULL,
    at TEXT NOT NULL,
    boxed INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    PRIMARY KEY (submission, seed)
) WITHOUT ROWID;
