-- The tables of pyramid_kvs's postgresql driver, version 1.
--
-- "pkvs migrate development.ini" runs this. Or run it by hand, as a role that may create tables:
--
--     psql -v ON_ERROR_STOP=1 -1 -f schema.sql mydatabase
--
-- and let the application's role use them:
--
--     GRANT SELECT, INSERT, UPDATE, DELETE ON kvs TO application;
--     GRANT SELECT ON kvs_version TO application;
--
-- For another name ("table" in kvs_kwargs), replace kvs and kvs_version throughout. A pure cache
-- may have CREATE UNLOGGED TABLE ("unlogged": true): faster to write, empty after a crash.
-- Running this again changes nothing.

CREATE TABLE IF NOT EXISTS kvs (
    expires timestamptz,        -- null: never
    is_text boolean NOT NULL,   -- whether data is text, in UTF-8
    key bytea NOT NULL,         -- prefix and key; of more than 1000 bytes, the first 1000 and SHA-256
    long_key bytea,             -- prefix and key, where key had to be shortened
    data bytea NOT NULL,
    PRIMARY KEY (key)
) WITH (
    -- Room on each page, so that a new version of a row stays on it (HOT): then no index is
    -- written. "expires" is in no index for the same reason.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0.2,
    autovacuum_analyze_scale_factor = 0.2,
    toast.autovacuum_vacuum_scale_factor = 0.05
);

-- One row, for later versions to migrate from.
CREATE TABLE IF NOT EXISTS kvs_version (
    version integer NOT NULL,
    is_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_only_row)
);

INSERT INTO kvs_version (version) VALUES (1) ON CONFLICT DO NOTHING;
