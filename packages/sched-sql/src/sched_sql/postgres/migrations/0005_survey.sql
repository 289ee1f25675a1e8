-- What looks at a store needs: the history in the order of commit, jobs that are rare by their state or kind, and
-- since when workers work. Workers of version 3 go on.

-- Nothing is being written while the numbers below are read. In the order in which workers lock them.
LOCK TABLE @schema@.job, @schema@.execution IN ACCESS EXCLUSIVE MODE;

CREATE INDEX execution_xact ON @schema@.execution (xact, seq);

-- A claim or a renewal changes none of these columns.
CREATE INDEX job_paused ON @schema@.job (format, tag) WHERE paused_at IS NOT NULL AND NOT removed;
CREATE INDEX job_finished ON @schema@.job (format, tag)
    WHERE number IS NULL AND requests IS NULL AND paused_at IS NULL AND NOT removed;
CREATE INDEX job_strange ON @schema@.job (format, tag)
    WHERE (format <> 2 OR tag NOT IN ('cron', 'interval', 'fixed_delay', 'once', 'any_of', 'between', 'excluding'))
        AND NOT removed;

-- The numbers of transactions belong to a cluster: what a dump or a replication brought into another one has numbers
-- of the first. So the history has eras, each with numbers of one cluster. One begins when the store is opened in a
-- cluster that it was not in before; what is written until then is the era before.
CREATE TABLE @schema@.era (
    era bigint PRIMARY KEY,
    after_seq bigint NOT NULL,                -- all with a greater seq are in it, or in a later one
    cluster bigint NOT NULL,                  -- the system identifier
    deleted_xact xid8 NOT NULL DEFAULT '0',   -- the newest execution of it that was deleted
    deleted_seq bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);

-- The cluster; 0 where this role may not know.
CREATE FUNCTION @schema@.cluster() RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $cluster$
    BEGIN
        RETURN (SELECT system_identifier FROM pg_control_system());
    EXCEPTION WHEN insufficient_privilege THEN
        RETURN 0;
    END
    $cluster$;

INSERT INTO @schema@.era (era, after_seq, cluster)
SELECT 0, -1, 0
UNION ALL
SELECT 1, greatest(coalesce((SELECT max(seq) FROM @schema@.execution), 0),
    coalesce(pg_sequence_last_value('@literal@.serial'), 0)), @schema@.cluster();

-- Which store this is, for the cursors of the history.
INSERT INTO @schema@.meta (key, value)
VALUES ('store', 1 + (hashtextextended(gen_random_uuid()::text, 0) & 4611686018427387903));

-- Notes what was deleted, in the transaction that deletes it, whoever does: a cursor before it has expired.
CREATE FUNCTION @schema@.note_deleted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, @schema@, pg_temp
    AS $note$
    BEGIN
        UPDATE era e SET deleted_xact = n.xact, deleted_seq = n.seq
        FROM (
            SELECT DISTINCT ON (i.era) i.era, g.xact, g.seq
            FROM gone g CROSS JOIN LATERAL (
                SELECT era FROM era WHERE after_seq < g.seq ORDER BY era DESC LIMIT 1) i
            ORDER BY i.era, g.xact DESC, g.seq DESC) n
        WHERE e.era = n.era AND (e.deleted_xact, e.deleted_seq) < (n.xact, n.seq);
        RETURN NULL;
    END
    $note$;

CREATE TRIGGER note_deleted AFTER DELETE ON @schema@.execution
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION @schema@.note_deleted();

-- As before, and what is dropped is noted.
CREATE OR REPLACE FUNCTION @schema@.drop_partitions(until bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, @schema@, pg_temp SET lock_timeout = '100ms'
    AS $drop$
    DECLARE
        parent regclass := 'execution';
        home oid := (SELECT relnamespace FROM pg_class WHERE oid = parent);
        schema_name text := (SELECT nspname FROM pg_namespace WHERE oid = home);
        each record;
        found bigint;
        dropped bigint := 0;
    BEGIN
        IF NOT has_table_privilege(session_user, parent, 'DELETE')
                OR NOT pg_try_advisory_xact_lock(hashtextextended(schema_name, 4)) THEN
            RETURN 0;
        END IF;
        FOR each IN SELECT c.relname AS called, c.oid AS id FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = parent AND c.relnamespace = home AND c.relname ~ '^execution_-?[0-9]+$'
                AND substr(c.relname, 11)::numeric * 86400000000 <= until
        LOOP
            BEGIN
                IF pg_relation_size(each.id) < 268435456 THEN
                    EXECUTE format('SELECT count(*) FROM %I.%I', schema_name, each.called) INTO found;
                ELSE  -- to count these takes too long
                    found := (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = each.id);
                END IF;
                -- In the order in which a drop locks them; nothing is written into it after this.
                EXECUTE format('LOCK TABLE ONLY execution, ONLY %I.%I IN ACCESS EXCLUSIVE MODE', schema_name,
                    each.called);
                EXECUTE format('UPDATE era e SET deleted_xact = n.xact, deleted_seq = n.seq FROM ('
                    'SELECT i.era, g.xact, g.seq FROM '
                    '(SELECT era, after_seq, lead(after_seq, 1, 9223372036854775807) OVER (ORDER BY era) AS up_to FROM era) i '
                    'CROSS JOIN LATERAL (SELECT xact, seq FROM %1$I.%2$I WHERE seq > i.after_seq AND seq <= i.up_to '
                    'AND EXISTS (SELECT FROM %1$I.%2$I WHERE seq > i.after_seq AND seq <= i.up_to) '
                    'ORDER BY xact DESC, seq DESC LIMIT 1) g) n '
                    'WHERE e.era = n.era AND (e.deleted_xact, e.deleted_seq) < (n.xact, n.seq)',
                    schema_name, each.called);
                EXECUTE format('DROP TABLE %I.%I', schema_name, each.called);
                dropped := dropped + found;
            EXCEPTION WHEN lock_not_available THEN NULL;
            END;
        END LOOP;
        RETURN dropped;
    END
    $drop$;

-- Begins an era, where the store is in a cluster that it was not in before; for whoever may write the history.
CREATE FUNCTION @schema@.begin_era() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, @schema@, pg_temp SET lock_timeout = '100ms'
    AS $begin$
    DECLARE
        here bigint := cluster();
        schema_name text := (SELECT nspname FROM pg_namespace
            WHERE oid = (SELECT relnamespace FROM pg_class WHERE oid = 'execution'::regclass));
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtextextended(schema_name, 5));
        IF here = (SELECT cluster FROM era ORDER BY era DESC LIMIT 1) THEN
            RETURN;
        END IF;
        -- What others are writing is in the era before, or begins after this.
        LOCK TABLE execution IN SHARE MODE;
        INSERT INTO era (era, after_seq, cluster)
        SELECT (SELECT max(era) FROM era) + 1, greatest(coalesce((SELECT max(seq) FROM execution), 0),
            coalesce(pg_sequence_last_value('serial'::regclass), 0)), here;
    END
    $begin$;

-- What may be done to the history may be done to its eras.
DO $grants$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT grantee FROM pg_class c, aclexplode(c.relacl) acl
        WHERE c.oid = '@literal@.execution'::regclass AND privilege_type = 'SELECT' AND grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO %s', '@literal@.era',
            CASE one.grantee WHEN 0 THEN 'PUBLIC' ELSE one.grantee::regrole::text END);
    END LOOP;
END
$grants$;
