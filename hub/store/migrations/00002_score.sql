-- Facts about services, and how their scores changed.

-- +goose Up
CREATE TABLE facts (
  service_id  TEXT NOT NULL,
  origin      TEXT NOT NULL,            -- a node's id, or "scan"
  facts       TEXT NOT NULL,            -- JSON, as package score writes it
  received_at BIGINT NOT NULL,
  PRIMARY KEY (service_id, origin)
);

-- One row for each change.
CREATE TABLE scores (
  id         TEXT PRIMARY KEY,
  service_id TEXT NOT NULL,
  at         BIGINT NOT NULL,
  score      BIGINT NOT NULL,
  grade      TEXT NOT NULL,
  rubric     TEXT NOT NULL,
  delta      BIGINT NOT NULL,
  reason     TEXT NOT NULL,
  rows       TEXT NOT NULL,             -- JSON array: what changed
  report     BYTEA NOT NULL             -- JSON, gzip
);
CREATE INDEX scores_service ON scores (service_id, at);

-- The score of each service as it is. The lock of a row orders its changes.
CREATE TABLE score_heads (
  service_id TEXT PRIMARY KEY,
  last       TEXT NOT NULL,             -- id in scores; empty: none yet
  at         BIGINT NOT NULL,           -- when it was judged last
  score      BIGINT NOT NULL,
  grade      TEXT NOT NULL,
  silent     BIGINT NOT NULL,
  node_id    TEXT NOT NULL              -- whose report it is
);

CREATE INDEX certificates_fingerprint ON certificates (fingerprint);

-- +goose Down
DROP INDEX certificates_fingerprint;
DROP TABLE score_heads;
DROP TABLE scores;
DROP TABLE facts;
