-- One text for SQLite and PostgreSQL: TEXT, BIGINT and BYTEA only. Times are
-- microseconds since 1970, 0 for none; truth is 1; ids are UUIDv7 or the
-- thing's own name.

-- +goose Up
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
);

CREATE TABLE authorities (
  id          TEXT PRIMARY KEY,
  kind        TEXT NOT NULL,            -- root | issuing | revocation
  key_id      TEXT NOT NULL,
  certificate BYTEA NOT NULL,           -- DER
  private_key BYTEA,                    -- PKCS#8 in PEM; NULL when taken away
  state       TEXT NOT NULL,            -- active | retired
  crl_number  BIGINT NOT NULL DEFAULT 0, -- the last one given out
  created_at  BIGINT NOT NULL,
  not_after   BIGINT NOT NULL
);

CREATE TABLE crls (
  issuer_key_id TEXT PRIMARY KEY,
  number        BIGINT NOT NULL,
  der           BYTEA NOT NULL,
  this_update   BIGINT NOT NULL,
  next_update   BIGINT NOT NULL,
  sequence      BIGINT NOT NULL         -- the log's head that it covers
);

CREATE TABLE certificates (
  id               TEXT PRIMARY KEY,
  serial           TEXT NOT NULL,
  issuer_key_id    TEXT NOT NULL,
  type             TEXT NOT NULL,
  service_id       TEXT NOT NULL,
  node_id          TEXT NOT NULL,
  identity         TEXT NOT NULL,
  common_name      TEXT NOT NULL,
  dns_names        TEXT NOT NULL,       -- JSON array
  ip_addresses     TEXT NOT NULL,       -- JSON array
  not_before       BIGINT NOT NULL,
  not_after        BIGINT NOT NULL,
  chain            TEXT NOT NULL,       -- PEM, leaf first
  key_algorithm    TEXT NOT NULL,
  fingerprint      TEXT NOT NULL,
  issued_by        TEXT NOT NULL,
  issued_at        BIGINT NOT NULL,
  renewed_from     TEXT NOT NULL,
  revoked_at       BIGINT NOT NULL DEFAULT 0,
  reason           TEXT NOT NULL DEFAULT '',
  revoked_sequence BIGINT NOT NULL DEFAULT 0,
  UNIQUE (issuer_key_id, serial)
);
CREATE INDEX certificates_serial ON certificates (serial);
CREATE INDEX certificates_issued ON certificates (issued_at, id);
CREATE INDEX certificates_expiry ON certificates (not_after, id);
CREATE INDEX certificates_service ON certificates (service_id, id);
CREATE INDEX certificates_revoked ON certificates (issuer_key_id, revoked_at);

-- What a certificate answers to when a name is revoked.
CREATE TABLE certificate_names (
  certificate_id TEXT NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
  kind           TEXT NOT NULL,
  name           TEXT NOT NULL,
  PRIMARY KEY (kind, name, certificate_id)
);
CREATE INDEX certificate_names_of ON certificate_names (certificate_id);

-- The one row whose lock orders revocations.
CREATE TABLE revlog_head (
  id       BIGINT PRIMARY KEY,
  log_id   TEXT NOT NULL,
  sequence BIGINT NOT NULL,
  hash     TEXT NOT NULL
);

CREATE TABLE revlog (
  sequence      BIGINT PRIMARY KEY,
  kind          TEXT NOT NULL,
  issuer_key_id TEXT NOT NULL,
  serial        TEXT NOT NULL,
  name          TEXT NOT NULL,
  reason        TEXT NOT NULL,
  revoked_at    BIGINT NOT NULL,
  expires_at    BIGINT NOT NULL,
  cutoff        BIGINT NOT NULL,
  hash          TEXT NOT NULL,          -- the chain's, after this entry
  revoked_by    TEXT NOT NULL
);
CREATE INDEX revlog_expiry ON revlog (kind, expires_at);

-- The last entry about each name.
CREATE TABLE names (
  kind       TEXT NOT NULL,
  name       TEXT NOT NULL,
  revoked    BIGINT NOT NULL,
  sequence   BIGINT NOT NULL,
  cutoff     BIGINT NOT NULL,           -- of the last lift
  PRIMARY KEY (kind, name)
);

-- Connections that sidecars closed when they applied a sequence.
CREATE TABLE revlog_cuts (
  sequence BIGINT PRIMARY KEY,
  cut      BIGINT NOT NULL
);

CREATE TABLE tokens (
  id          TEXT PRIMARY KEY,
  kind        TEXT NOT NULL,
  role        TEXT NOT NULL,
  service     TEXT NOT NULL,
  note        TEXT NOT NULL,
  secret_hash BYTEA NOT NULL,
  created_at  BIGINT NOT NULL,
  created_by  TEXT NOT NULL,
  expires_at  BIGINT NOT NULL,
  used_at     BIGINT NOT NULL DEFAULT 0,
  used_by     TEXT NOT NULL DEFAULT '',
  revoked_at  BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE nodes (
  id               TEXT PRIMARY KEY,
  service_id       TEXT NOT NULL,
  uid              BIGINT NOT NULL,     -- of the local user that it is; -1: it has a certificate instead
  enrolled_at      BIGINT NOT NULL,
  removed_at       BIGINT NOT NULL DEFAULT 0,
  certificate_id   TEXT NOT NULL,
  hostname         TEXT NOT NULL,
  version          TEXT NOT NULL,
  last_seen        BIGINT NOT NULL DEFAULT 0,
  replica          TEXT NOT NULL DEFAULT '', -- that it watches; empty: none
  applied_sequence BIGINT NOT NULL DEFAULT 0,
  applied_at       BIGINT NOT NULL DEFAULT 0,
  connections      BIGINT NOT NULL DEFAULT 0,
  healthy          BIGINT NOT NULL DEFAULT 0,
  detail           TEXT NOT NULL DEFAULT '',
  policy_version   BIGINT NOT NULL DEFAULT 0,
  events_dropped   BIGINT NOT NULL DEFAULT 0,
  serving_until    BIGINT NOT NULL DEFAULT 0  -- notAfter of the certificate that it serves
);
CREATE INDEX nodes_service ON nodes (service_id, id);

CREATE TABLE replicas (
  id      TEXT PRIMARY KEY,
  seen_at BIGINT NOT NULL
);

CREATE TABLE policies (
  service_id TEXT NOT NULL,
  version    BIGINT NOT NULL,
  body       BYTEA NOT NULL,
  updated_at BIGINT NOT NULL,
  updated_by TEXT NOT NULL,
  PRIMARY KEY (service_id, version)
);

CREATE TABLE events (
  node_id     TEXT NOT NULL,
  id          TEXT NOT NULL,
  time        BIGINT NOT NULL,
  received_at BIGINT NOT NULL,
  service_id  TEXT NOT NULL,
  kind        TEXT NOT NULL,
  identity    TEXT NOT NULL,
  outcome     TEXT NOT NULL,
  detail      TEXT NOT NULL,
  remote      TEXT NOT NULL,
  serial      TEXT NOT NULL,
  attributes  TEXT NOT NULL,            -- JSON object
  size        BIGINT NOT NULL,          -- of its text, in bytes
  PRIMARY KEY (node_id, id)
);
CREATE INDEX events_time ON events (time, id);
CREATE INDEX events_received ON events (received_at);
CREATE INDEX events_service ON events (service_id, time);
CREATE INDEX events_identity ON events (identity, time);

CREATE TABLE webhooks (
  id         TEXT PRIMARY KEY,
  url        TEXT NOT NULL,
  topics     TEXT NOT NULL,             -- JSON array; empty: all
  secret     TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  delivered  BIGINT NOT NULL DEFAULT 0,
  last_error TEXT NOT NULL DEFAULT ''
);

CREATE TABLE deliveries (
  id          TEXT PRIMARY KEY,
  webhook_id  TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
  topic       TEXT NOT NULL,
  payload     BYTEA NOT NULL,
  created_at  BIGINT NOT NULL,
  attempts    BIGINT NOT NULL DEFAULT 0,
  next_at     BIGINT NOT NULL
);
CREATE INDEX deliveries_next ON deliveries (next_at);

-- +goose Down
DROP TABLE deliveries;
DROP TABLE webhooks;
DROP TABLE events;
DROP TABLE policies;
DROP TABLE replicas;
DROP TABLE nodes;
DROP TABLE tokens;
DROP TABLE revlog_cuts;
DROP TABLE names;
DROP TABLE revlog;
DROP TABLE revlog_head;
DROP TABLE certificate_names;
DROP TABLE certificates;
DROP TABLE crls;
DROP TABLE authorities;
DROP TABLE meta;
