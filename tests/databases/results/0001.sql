BEGIN TRANSACTION;
CREATE TABLE gradings (
    submission INTEGER NOT NULL REFERENCES submissions (id),
    seed INTEGER NOT NULL,
    at TEXT NOT NULL,
    boxed INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    PRIMARY KEY (submission, seed)
) WITHOUT ROWID;
INSERT INTO "gradings" VALUES(1,1,'2026-03-07T09:00:00.000000+00:00',1,'{"version":1,"slug":"numpy_lora","passed":true,"level":"none","seed":1,"seconds":0.1,"checks":[{"name":"one","part":"forward","outcome":"passed","message":"","bug":null,"printed":""}],"headline":null,"error":null}');
INSERT INTO "gradings" VALUES(1,2,'2026-03-07T09:00:00.000000+00:00',0,'{"version":1,"slug":"numpy_lora","passed":false,"level":"none","seed":2,"seconds":0.1,"checks":[{"name":"one","part":"forward","outcome":"failed","message":"","bug":"scale-twice","printed":""}],"headline":null,"error":null}');
INSERT INTO "gradings" VALUES(3,3,'2026-03-07T09:00:00.000000+00:00',1,'{"version":1,"slug":"numpy_lora","passed":true,"level":"none","seed":3,"seconds":0.1,"checks":[{"name":"one","part":"forward","outcome":"passed","message":"","bug":null,"printed":""}],"headline":null,"error":null}');
CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
INSERT INTO "settings" VALUES('secret','"0123"');
INSERT INTO "settings" VALUES('options','{"paths":["/class"],"roster":null,"katas":["numpy_lora"],"seeds":2,"boxed":true,"feedback":"full"}');
INSERT INTO "settings" VALUES('notes','["A note."]');
INSERT INTO "settings" VALUES('kata','"0.2.0"');
INSERT INTO "settings" VALUES('layers','[{"name":"seccomp","holds":true,"words":"","needed":true}]');
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
INSERT INTO "submissions" VALUES(1,0,'ada','numpy_lora','class/ada.py','a',X'616461',NULL,'basis','[1,2]',NULL);
INSERT INTO "submissions" VALUES(2,1,'ben','numpy_lora','',NULL,NULL,'Not handed in.','basis','[]',NULL);
INSERT INTO "submissions" VALUES(3,2,'cem','numpy_lora','class/cem.py','c',X'63656D',NULL,'basis','[3,4]',NULL);
INSERT INTO "submissions" VALUES(4,3,'dan','numpy_lora','class/dan.py','d',X'64616E',NULL,'basis','[5]','It broke.');
COMMIT;
PRAGMA user_version = 1;
