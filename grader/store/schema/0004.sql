-- What happened has an identity that holds on every machine, so that two records can be joined, and
-- that sorts: by time across machines, and within one by the order in which rows came, whatever
-- was done to its clock. Rows of before get one on which two copies of a file agree.
ALTER TABLE snapshots ADD COLUMN uid TEXT;
UPDATE snapshots SET uid = at || '-' || printf('%08x', id);
CREATE UNIQUE INDEX snapshots_by_uid ON snapshots (uid);
CREATE TRIGGER snapshots_get_uid AFTER INSERT ON snapshots WHEN NEW.uid IS NULL BEGIN
    UPDATE snapshots SET uid = max(at, coalesce((SELECT substr(max(uid), 1, length(NEW.at)) FROM snapshots), ''))
        || '-' || printf('%08x', id) || '-' || lower(hex(randomblob(6)))
    WHERE id = NEW.id;
END;

ALTER TABLE rounds ADD COLUMN uid TEXT;
UPDATE rounds SET uid = at || '-' || printf('%08x', id);
CREATE UNIQUE INDEX rounds_by_uid ON rounds (uid);
CREATE TRIGGER rounds_get_uid AFTER INSERT ON rounds WHEN NEW.uid IS NULL BEGIN
    UPDATE rounds SET uid = max(at, coalesce((SELECT substr(max(uid), 1, length(NEW.at)) FROM rounds), ''))
        || '-' || printf('%08x', id) || '-' || lower(hex(randomblob(6)))
    WHERE id = NEW.id;
END;

ALTER TABLE work ADD COLUMN uid TEXT;
UPDATE work SET uid = at || '-' || printf('%08x', id);
CREATE UNIQUE INDEX work_by_uid ON work (uid);
CREATE TRIGGER work_get_uid AFTER INSERT ON work WHEN NEW.uid IS NULL BEGIN
    UPDATE work SET uid = max(at, coalesce((SELECT substr(max(uid), 1, length(NEW.at)) FROM work), ''))
        || '-' || printf('%08x', id) || '-' || lower(hex(randomblob(6)))
    WHERE id = NEW.id;
END;

ALTER TABLE attempts ADD COLUMN uid TEXT;
UPDATE attempts SET uid = at || '-' || printf('%08x', id);
CREATE UNIQUE INDEX attempts_by_uid ON attempts (uid);
CREATE TRIGGER attempts_get_uid AFTER INSERT ON attempts WHEN NEW.uid IS NULL BEGIN
    UPDATE attempts SET uid = max(at, coalesce((SELECT substr(max(uid), 1, length(NEW.at)) FROM attempts), ''))
        || '-' || printf('%08x', id) || '-' || lower(hex(randomblob(6)))
    WHERE id = NEW.id;
END;

ALTER TABLE hints_seen ADD COLUMN uid TEXT;
UPDATE hints_seen SET uid = at || '-' || printf('%08x', id);
CREATE UNIQUE INDEX hints_seen_by_uid ON hints_seen (uid);
CREATE TRIGGER hints_seen_get_uid AFTER INSERT ON hints_seen WHEN NEW.uid IS NULL BEGIN
    UPDATE hints_seen SET uid = max(at, coalesce((SELECT substr(max(uid), 1, length(NEW.at)) FROM hints_seen), ''))
        || '-' || printf('%08x', id) || '-' || lower(hex(randomblob(6)))
    WHERE id = NEW.id;
END;

ALTER TABLE solutions_seen ADD COLUMN uid TEXT;
UPDATE solutions_seen SET uid = at || '-' || printf('%08x', id);
CREATE UNIQUE INDEX solutions_seen_by_uid ON solutions_seen (uid);
CREATE TRIGGER solutions_seen_get_uid AFTER INSERT ON solutions_seen WHEN NEW.uid IS NULL BEGIN
    UPDATE solutions_seen SET uid = max(at, coalesce((SELECT substr(max(uid), 1, length(NEW.at)) FROM solutions_seen), ''))
        || '-' || printf('%08x', id) || '-' || lower(hex(randomblob(6)))
    WHERE id = NEW.id;
END;

ALTER TABLE quizzes ADD COLUMN uid TEXT;
UPDATE quizzes SET uid = at || '-' || printf('%08x', id);
CREATE UNIQUE INDEX quizzes_by_uid ON quizzes (uid);
CREATE TRIGGER quizzes_get_uid AFTER INSERT ON quizzes WHEN NEW.uid IS NULL BEGIN
    UPDATE quizzes SET uid = max(at, coalesce((SELECT substr(max(uid), 1, length(NEW.at)) FROM quizzes), ''))
        || '-' || printf('%08x', id) || '-' || lower(hex(randomblob(6)))
    WHERE id = NEW.id;
END;

ALTER TABLE interviews ADD COLUMN uid TEXT;
UPDATE interviews SET uid = at || '-' || printf('%08x', id);
CREATE UNIQUE INDEX interviews_by_uid ON interviews (uid);
CREATE TRIGGER interviews_get_uid AFTER INSERT ON interviews WHEN NEW.uid IS NULL BEGIN
    UPDATE interviews SET uid = max(at, coalesce((SELECT substr(max(uid), 1, length(NEW.at)) FROM interviews), ''))
        || '-' || printf('%08x', id) || '-' || lower(hex(randomblob(6)))
    WHERE id = NEW.id;
END;

ALTER TABLE interview_events ADD COLUMN uid TEXT;
UPDATE interview_events SET uid = at || '-' || printf('%08x', id);
CREATE UNIQUE INDEX interview_events_by_uid ON interview_events (uid);
CREATE TRIGGER interview_events_get_uid AFTER INSERT ON interview_events WHEN NEW.uid IS NULL BEGIN
    UPDATE interview_events SET uid = max(at, coalesce((SELECT substr(max(uid), 1, length(NEW.at)) FROM interview_events), ''))
        || '-' || printf('%08x', id) || '-' || lower(hex(randomblob(6)))
    WHERE id = NEW.id;
END;

ALTER TABLE answers ADD COLUMN uid TEXT;
UPDATE answers SET uid = at || '-' || printf('%08x', id);
CREATE UNIQUE INDEX answers_by_uid ON answers (uid);
CREATE TRIGGER answers_get_uid AFTER INSERT ON answers WHEN NEW.uid IS NULL BEGIN
    UPDATE answers SET uid = max(at, coalesce((SELECT substr(max(uid), 1, length(NEW.at)) FROM answers), ''))
        || '-' || printf('%08x', id) || '-' || lower(hex(randomblob(6)))
    WHERE id = NEW.id;
END;

ALTER TABLE reviews ADD COLUMN uid TEXT;
UPDATE reviews SET uid = at || '-' || printf('%08x', id);
CREATE UNIQUE INDEX reviews_by_uid ON reviews (uid);
CREATE TRIGGER reviews_get_uid AFTER INSERT ON reviews WHEN NEW.uid IS NULL BEGIN
    UPDATE reviews SET uid = max(at, coalesce((SELECT substr(max(uid), 1, length(NEW.at)) FROM reviews), ''))
        || '-' || printf('%08x', id) || '-' || lower(hex(randomblob(6)))
    WHERE id = NEW.id;
END;

-- When a setting was made: the later one holds where two records are joined, and those of before
-- are the earliest.
ALTER TABLE settings ADD COLUMN changed TEXT;
UPDATE settings SET changed = '';
CREATE TRIGGER settings_get_changed AFTER INSERT ON settings WHEN NEW.changed IS NULL BEGIN
    UPDATE settings SET changed = strftime('%Y-%m-%dT%H:%M:%f', 'now') WHERE key = NEW.key;
END;
