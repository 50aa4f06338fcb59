"""The tables, as numbered migrations.

Owns the SQL that makes a database; run by store/database.py only. A migration that was released is
never edited: append another one. The constraints are the second line of defence behind the core:
a violation is a bug and escapes as `sqlite3.IntegrityError`.

Rule 1: `jobs` holds what decisions change and what differs from job to job; what jobs of one submit
or source have in common is one row of `templates`, and its environment one of `environments`, both
interned by content. A template lives while a job or an array refers to it, an environment while a
template does. `jobs.template` is no foreign key, since pruning would scan all jobs for each
template: store/orphans.py deletes the templates that none refers to, then the environments.
Rule 2: the live attempt of a job is number `jobs.attempt` while the job is active: a second one
cannot be said. Its outcome is NULL, and that of all others is not.
Rule 3: a CHECK says OR where it could say IN: for an IN SQLite builds a table at every row.
Rule 4: ids come from `meta.next_id`; sequence numbers go on from the newest event, which is never
pruned (AUTOINCREMENT would write one more page at every commit). Neither is ever used again.
"""

from __future__ import annotations

APPLICATION_ID = 0x67707564  # "gpud"

V1 = """
CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  next_id INTEGER NOT NULL CHECK (typeof(next_id) = 'integer' AND next_id > 0),
  draining INTEGER NOT NULL CHECK (draining = 0 OR draining = 1)
);
INSERT INTO meta (one, next_id, draining) VALUES (1, 1, 0);

CREATE TABLE environments (
  id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE CHECK (typeof(digest) = 'blob'),
  content BLOB NOT NULL CHECK (typeof(content) = 'blob')
);

CREATE TABLE templates (
  id INTEGER PRIMARY KEY,
  environment INTEGER NOT NULL REFERENCES environments (id),
  content TEXT NOT NULL CHECK (typeof(content) = 'text'),
  UNIQUE (environment, content)
);

CREATE TABLE jobs (
  id INTEGER PRIMARY KEY CHECK (id > 0),
  template INTEGER NOT NULL CHECK (typeof(template) = 'integer'),
  state TEXT NOT NULL CHECK (
    state = 'queued' OR state = 'active' OR state = 'done' OR state = 'held'),
  priority INTEGER NOT NULL CHECK (typeof(priority) = 'integer'),
  submitted_at_ms INTEGER NOT NULL CHECK (typeof(submitted_at_ms) = 'integer'),
  retries_left INTEGER NOT NULL CHECK (typeof(retries_left) = 'integer'),
  attempt INTEGER NOT NULL CHECK (typeof(attempt) = 'integer'),
  retry_no INTEGER NOT NULL CHECK (typeof(retry_no) = 'integer'),
  not_before_ms INTEGER NOT NULL CHECK (typeof(not_before_ms) = 'integer'),
  outcome TEXT CHECK (outcome IS NULL
    OR outcome = 'succeeded' OR outcome = 'failed' OR outcome = 'killed' OR outcome = 'timed-out'
    OR outcome = 'cancelled' OR outcome = 'not-started' OR outcome = 'lost'),
  ended_at_ms INTEGER NOT NULL CHECK (typeof(ended_at_ms) = 'integer'),
  why TEXT NOT NULL CHECK (typeof(why) = 'text'),
  name TEXT NOT NULL CHECK (typeof(name) = 'text'),
  source TEXT NOT NULL CHECK (typeof(source) = 'text'),
  entry_key TEXT CHECK (entry_key IS NULL OR typeof(entry_key) = 'text'),
  origin TEXT NOT NULL CHECK (typeof(origin) = 'text'),
  argv TEXT CHECK (argv IS NULL OR typeof(argv) = 'text'),
  command BLOB NOT NULL CHECK (typeof(command) = 'blob'),
  CHECK ((state = 'done') = (outcome IS NOT NULL)),
  CHECK (not_before_ms = 0 OR state = 'queued')
);
-- What waits, as it would be dispatched: due, then delayed. `source` makes it cover counts. What
-- is active stands before it, on the page that a dispatch changes anyway.
CREATE INDEX jobs_open ON jobs (state, not_before_ms, priority DESC, id, source)
  WHERE state <> 'done';
CREATE INDEX jobs_done ON jobs (outcome, ended_at_ms) WHERE state = 'done';
CREATE INDEX jobs_name ON jobs (name) WHERE name <> '';
CREATE UNIQUE INDEX jobs_entry ON jobs (source, entry_key) WHERE source <> '';

CREATE TABLE attempts (
  job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  no INTEGER NOT NULL CHECK (typeof(no) = 'integer' AND no > 0),
  phase TEXT NOT NULL CHECK (typeof(phase) = 'text'),
  boot_id TEXT NOT NULL CHECK (typeof(boot_id) = 'text'),
  dispatched_at_ms INTEGER NOT NULL CHECK (typeof(dispatched_at_ms) = 'integer'),
  lease TEXT NOT NULL CHECK (typeof(lease) = 'text'),
  started_at_ms INTEGER NOT NULL CHECK (typeof(started_at_ms) = 'integer'),
  pid INTEGER NOT NULL CHECK (typeof(pid) = 'integer'),
  stop_grace_s REAL CHECK (stop_grace_s IS NULL OR typeof(stop_grace_s) = 'real'),
  ended_at_ms INTEGER NOT NULL CHECK (typeof(ended_at_ms) = 'integer'),
  outcome TEXT CHECK (outcome IS NULL
    OR outcome = 'succeeded' OR outcome = 'failed' OR outcome = 'killed' OR outcome = 'timed-out'
    OR outcome = 'cancelled' OR outcome = 'not-started' OR outcome = 'lost'),
  exit_code INTEGER CHECK (exit_code IS NULL OR typeof(exit_code) = 'integer'),
  signal INTEGER CHECK (signal IS NULL OR typeof(signal) = 'integer'),
  why TEXT NOT NULL CHECK (typeof(why) = 'text'),
  rusage TEXT CHECK (rusage IS NULL OR typeof(rusage) = 'text'),
  PRIMARY KEY (job, no)
) WITHOUT ROWID;

CREATE TABLE events (
  seq INTEGER PRIMARY KEY CHECK (seq > 0),
  at_ms INTEGER NOT NULL CHECK (typeof(at_ms) = 'integer'),
  job INTEGER NOT NULL CHECK (typeof(job) = 'integer'),
  attempt INTEGER NOT NULL CHECK (typeof(attempt) = 'integer'),
  count INTEGER NOT NULL CHECK (typeof(count) = 'integer' AND count > 0),
  kind TEXT NOT NULL CHECK (typeof(kind) = 'text'),
  detail TEXT NOT NULL CHECK (typeof(detail) = 'text')
);
CREATE INDEX events_of_one ON events (job) WHERE count = 1;
CREATE INDEX events_of_many ON events (job, count) WHERE count > 1;

CREATE TABLE sources (
  name TEXT PRIMARY KEY CHECK (typeof(name) = 'text'),
  position TEXT CHECK (position IS NULL OR typeof(position) = 'text'),
  stopped INTEGER NOT NULL DEFAULT 0 CHECK (stopped = 0 OR stopped = 1),
  taken INTEGER NOT NULL DEFAULT 0 CHECK (typeof(taken) = 'integer')
) WITHOUT ROWID;

CREATE TABLE submissions (
  key TEXT PRIMARY KEY CHECK (typeof(key) = 'text'),
  digest TEXT NOT NULL CHECK (typeof(digest) = 'text'),
  first INTEGER NOT NULL CHECK (typeof(first) = 'integer'),
  count INTEGER NOT NULL CHECK (typeof(count) = 'integer')
) WITHOUT ROWID;
"""

# `jobs.amended` and `attempts.on_gpu` are NULL where there is nothing to say, which is nearly
# always: store/codec.py, Amended and OnGpu.
V2 = """
ALTER TABLE jobs ADD COLUMN amended TEXT CHECK (amended IS NULL OR typeof(amended) = 'text');
ALTER TABLE attempts ADD COLUMN on_gpu TEXT CHECK (on_gpu IS NULL OR typeof(on_gpu) = 'text');

CREATE TABLE quarantines (
  uuid TEXT PRIMARY KEY CHECK (typeof(uuid) = 'text'),
  why TEXT NOT NULL CHECK (typeof(why) = 'text'),
  at_ms INTEGER NOT NULL CHECK (typeof(at_ms) = 'integer'),
  boot_id TEXT NOT NULL CHECK (typeof(boot_id) = 'text'),
  base_mib INTEGER CHECK (base_mib IS NULL OR typeof(base_mib) = 'integer')
) WITHOUT ROWID;

CREATE TABLE usual_memory (
  likeness TEXT PRIMARY KEY CHECK (typeof(likeness) = 'text'),
  mib INTEGER NOT NULL CHECK (typeof(mib) = 'integer' AND mib > 0)
) WITHOUT ROWID;
"""

# Spans of jobs that a job comes after; most come after none.
V3 = """
CREATE TABLE dependencies (
  job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  first INTEGER NOT NULL CHECK (typeof(first) = 'integer' AND first > 0),
  last INTEGER NOT NULL CHECK (typeof(last) = 'integer' AND last >= first AND last < job),
  ended INTEGER NOT NULL CHECK (ended = 0 OR ended = 1),
  patient INTEGER NOT NULL CHECK (patient = 0 OR patient = 1),
  PRIMARY KEY (job, first, ended)
) WITHOUT ROWID;
"""

# An element of an array has a row of `jobs` once it has changed; `whole`: all of them have.
V4 = """
ALTER TABLE jobs ADD COLUMN array INTEGER NOT NULL DEFAULT 0 CHECK (typeof(array) = 'integer');

CREATE TABLE arrays (
  first INTEGER PRIMARY KEY CHECK (first > 0),
  last INTEGER NOT NULL CHECK (typeof(last) = 'integer' AND last >= first),
  content TEXT NOT NULL CHECK (typeof(content) = 'text'),
  state TEXT NOT NULL CHECK (state = 'queued' OR state = 'held'),
  priority INTEGER NOT NULL CHECK (typeof(priority) = 'integer'),
  place REAL CHECK (place IS NULL OR typeof(place) = 'real'),
  submitted_at_ms INTEGER NOT NULL CHECK (typeof(submitted_at_ms) = 'integer'),
  retries_left INTEGER NOT NULL CHECK (typeof(retries_left) = 'integer'),
  whole INTEGER NOT NULL DEFAULT 0 CHECK (whole = 0 OR whole = 1),
  template INTEGER NOT NULL CHECK (typeof(template) = 'integer'),
  name TEXT NOT NULL CHECK (typeof(name) = 'text'),
  source TEXT NOT NULL CHECK (typeof(source) = 'text'),
  entry_key TEXT CHECK (entry_key IS NULL OR typeof(entry_key) = 'text'),
  origin TEXT NOT NULL CHECK (typeof(origin) = 'text'),
  argv TEXT CHECK (argv IS NULL OR typeof(argv) = 'text'),
  command BLOB NOT NULL CHECK (typeof(command) = 'blob')
);
CREATE INDEX arrays_open ON arrays (first) WHERE NOT whole;
CREATE INDEX arrays_name ON arrays (name) WHERE name <> '';
CREATE UNIQUE INDEX arrays_entry ON arrays (source, entry_key) WHERE source <> '';
"""

# Edits and moves. `place` is NULL while a job stands by its id. An entry of a source stays known by
# the command that stood there: `entry_command`, where `command` is another now. And an edit can
# name jobs that came later.
V5 = """
ALTER TABLE jobs ADD COLUMN place REAL CHECK (place IS NULL OR typeof(place) = 'real');
ALTER TABLE jobs ADD COLUMN entry_command BLOB
  CHECK (entry_command IS NULL OR typeof(entry_command) = 'blob');
DROP INDEX jobs_open;
CREATE INDEX jobs_open
  ON jobs (state, not_before_ms, priority DESC, ifnull(place, id), id, source)
  WHERE state <> 'done';

CREATE TABLE dependencies_of_any (
  job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  first INTEGER NOT NULL CHECK (typeof(first) = 'integer' AND first > 0),
  last INTEGER NOT NULL CHECK (typeof(last) = 'integer' AND last >= first),
  ended INTEGER NOT NULL CHECK (ended = 0 OR ended = 1),
  patient INTEGER NOT NULL CHECK (patient = 0 OR patient = 1),
  PRIMARY KEY (job, first, ended)
) WITHOUT ROWID;
INSERT INTO dependencies_of_any SELECT job, first, last, ended, patient FROM dependencies;
DROP TABLE dependencies;
ALTER TABLE dependencies_of_any RENAME TO dependencies;
"""

# What people said of gates and how many of their jobs failed (core/rules.py, Kept), what users have
# had of the GPUs, and which templates belong to which user, group and label, by the keys of gates.
V6 = """
CREATE TABLE gates (
  key TEXT PRIMARY KEY CHECK (typeof(key) = 'text'),
  run_limit INTEGER CHECK (run_limit IS NULL OR typeof(run_limit) = 'integer'),
  max_fails INTEGER CHECK (max_fails IS NULL OR typeof(max_fails) = 'integer'),
  fails INTEGER NOT NULL CHECK (typeof(fails) = 'integer' AND fails >= 0)
) WITHOUT ROWID;

CREATE TABLE gpu_usage (
  uid INTEGER PRIMARY KEY CHECK (uid >= 0),
  used_s REAL NOT NULL CHECK (typeof(used_s) = 'real' AND used_s >= 0),
  at_ms INTEGER NOT NULL CHECK (typeof(at_ms) = 'integer')
);

CREATE TABLE tags (
  tag TEXT NOT NULL CHECK (typeof(tag) = 'text'),
  template INTEGER NOT NULL REFERENCES templates (id) ON DELETE CASCADE,
  PRIMARY KEY (tag, template)
) WITHOUT ROWID;
INSERT INTO tags (tag, template)
  SELECT 'user:' || json_extract(content, '$.uid'), id FROM templates;
CREATE INDEX jobs_template ON jobs (template);
ALTER TABLE arrays ADD COLUMN why TEXT NOT NULL DEFAULT '' CHECK (typeof(why) = 'text');
ALTER TABLE arrays ADD COLUMN held_by TEXT NOT NULL DEFAULT '' CHECK (typeof(held_by) = 'text');
"""

# What is left of jobs that are no longer kept (store/pruning.py): the entries of sources, which
# must not be taken twice. And what became of logs, most of which have no row: `gone_at_ms`, 0 while
# the file is there; `due`, the file is still to be removed; a part of it that was cut out.
V7 = """
CREATE TABLE past_entries (
  source TEXT NOT NULL CHECK (typeof(source) = 'text'),
  entry_key TEXT NOT NULL CHECK (typeof(entry_key) = 'text'),
  digest BLOB NOT NULL CHECK (typeof(digest) = 'blob'),
  PRIMARY KEY (source, entry_key)
) WITHOUT ROWID;

CREATE TABLE logs (
  job INTEGER NOT NULL CHECK (typeof(job) = 'integer'),
  no INTEGER NOT NULL CHECK (typeof(no) = 'integer'),
  gone_at_ms INTEGER NOT NULL DEFAULT 0 CHECK (typeof(gone_at_ms) = 'integer'),
  due INTEGER NOT NULL DEFAULT 0 CHECK (due = 0 OR due = 1),
  cut_first INTEGER NOT NULL DEFAULT 0 CHECK (typeof(cut_first) = 'integer'),
  cut_end INTEGER NOT NULL DEFAULT 0 CHECK (cut_end >= cut_first),
  PRIMARY KEY (job, no)
) WITHOUT ROWID;
CREATE INDEX logs_due ON logs (job, no) WHERE due;
CREATE INDEX tags_template ON tags (template);
"""

# Who asked for what, and got it. A row for each run of ids; 0 to 0: about no job.
V8 = """
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY CHECK (seq > 0),
  at_ms INTEGER NOT NULL CHECK (typeof(at_ms) = 'integer'),
  first INTEGER NOT NULL CHECK (typeof(first) = 'integer' AND first >= 0),
  last INTEGER NOT NULL CHECK (typeof(last) = 'integer' AND last >= first),
  verb TEXT NOT NULL CHECK (typeof(verb) = 'text'),
  uid INTEGER NOT NULL CHECK (typeof(uid) = 'integer'),
  pid INTEGER NOT NULL CHECK (typeof(pid) = 'integer')
);
CREATE INDEX audit_of_one ON audit (first) WHERE first = last;
CREATE INDEX audit_of_many ON audit (first, last) WHERE first <> last;
"""

MIGRATIONS: tuple[str, ...] = (V1, V2, V3, V4, V5, V6, V7, V8)  # the n-th brings version n - 1 to n
