-- Renewals of claims whose rows were locked by others when their leases were to be extended. A lease lasts until
-- the later of the two moments. A takeover ends what stands here first: of an owner that renews and a worker that
-- takes over at the same moment, the key lets only one win.
CREATE TABLE @schema@.renewal (
    token bigint NOT NULL,
    worker text NOT NULL,
    lease_until bigint NOT NULL,
    ended boolean NOT NULL DEFAULT false,     -- taken over: no renewal any more
    PRIMARY KEY (token, worker)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- Whatever search path it is called with.
CREATE OR REPLACE FUNCTION @schema@.moment(micros bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$SELECT pg_catalog.timestamptz '1970-01-01 00:00:00+00'
        OPERATOR(pg_catalog.+) (micros OPERATOR(pg_catalog.*) pg_catalog.interval '1 microsecond')$$;
