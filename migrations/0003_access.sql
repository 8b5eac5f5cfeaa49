-- Access: API keys, the audit of what operators did, and the queue of a namespace for roles that may create no table.

create table tasker.api_keys (
    prefix       text primary key check (prefix ~ '^[a-z0-9]{12}$'),
    name         text not null unique check (name <> '' and length(name) <= 100),
    hash         bytea not null check (length(hash) = 32),
    permissions  text[] not null,
    namespaces   text[] not null,
    created_at   timestamptz not null default clock_timestamp(),
    created_by   text not null,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
comment on table tasker.api_keys is 'API keys of the HTTP of both services. The key itself is nowhere.';
comment on column tasker.api_keys.prefix is 'The part of the key that may be shown; finds the row.';
comment on column tasker.api_keys.name is 'Whose it is, as histories and the audit name it; never used again.';
comment on column tasker.api_keys.hash is 'SHA-256 of the whole key, which has 256 random bits.';
comment on column tasker.api_keys.permissions is 'What it may do: words such as tasks:read, tasks:*, *.';
comment on column tasker.api_keys.namespaces is 'Where it may: names, or *.';
comment on column tasker.api_keys.created_at is 'When it was made.';
comment on column tasker.api_keys.created_by is 'Who made it.';
comment on column tasker.api_keys.expires_at is 'When it ends by itself; null is never.';
comment on column tasker.api_keys.revoked_at is 'When somebody ended it.';
comment on column tasker.api_keys.last_used_at is 'When it was used last, to the minute.';

create function tasker.authenticate_key(prefix text, hash bytea)
returns table (name text, permissions text[], namespaces text[], seconds_left double precision, refused text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    found tasker.api_keys;
    now   timestamptz := clock_timestamp();
begin
    select k.* into found from tasker.api_keys k
     where k.prefix = authenticate_key.prefix and k.hash = authenticate_key.hash;
    if found.prefix is null then
        return;
    end if;
    refused := case
        when found.revoked_at is not null then 'revoked'
        when found.expires_at <= now then 'expired'
    end;
    -- once a minute, so that a busy key does not write with every request; not at all on a replica
    if refused is null and not pg_is_in_recovery() and (found.last_used_at is null or found.last_used_at < now - interval '1 minute') then
        update tasker.api_keys k set last_used_at = now where k.prefix = found.prefix;
    end if;
    return query select found.name, found.permissions, found.namespaces,
                        extract(epoch from found.expires_at - now)::double precision, refused;
end
$$;
comment on function tasker.authenticate_key(text, bytea) is 'What a key may, for those who have the whole of it: roles that may not read the table ask here.';

create table tasker.audit_log (
    id         bigint generated always as identity primary key,
    at         timestamptz not null default clock_timestamp(),
    principal  text not null,
    address    text,
    action     text not null,
    target     text not null,
    outcome    text not null check (outcome in ('done', 'refused', 'failed')),
    status     smallint,
    reason     text,
    request_id uuid not null
);
comment on table tasker.audit_log is 'What operators did and tried to do. Rows are added and, when they are old, removed; none is ever changed.';
comment on column tasker.audit_log.id is 'The order.';
comment on column tasker.audit_log.at is 'When, by the database''s clock.';
comment on column tasker.audit_log.principal is 'Who: key:NAME, jwt:SUBJECT, cli:USER, or anonymous.';
comment on column tasker.audit_log.address is 'Where the request came from.';
comment on column tasker.audit_log.action is 'What: such as task.cancel, template.apply, key.create, or access for a caller who was turned away.';
comment on column tasker.audit_log.target is 'On what: the path of the request, or the thing''s name.';
comment on column tasker.audit_log.outcome is 'done; refused: not allowed, not possible, or wrong; failed: the service could not, or does not know.';
comment on column tasker.audit_log.status is 'The HTTP status of the answer.';
comment on column tasker.audit_log.reason is 'Why it was refused or failed.';
comment on column tasker.audit_log.request_id is 'Names the request in the answer (x-request-id) and in logs.';
comment on sequence tasker.audit_log_id_seq is 'Orders the audit.';
create index audit_log_at on tasker.audit_log (at);
comment on index tasker.audit_log_at is 'Removes what is old, and lists a span of time.';

create function tasker.refuse_change() returns trigger
language plpgsql
as $$
begin
    raise exception 'rows of %.% are never changed', tg_table_schema, tg_table_name using errcode = 'insufficient_privilege';
end
$$;
comment on function tasker.refuse_change() is 'Keeps a table append-only, whoever is connected.';
create trigger audit_log_is_append_only before update or truncate on tasker.audit_log
    for each statement execute function tasker.refuse_change();

create function tasker.grant_queue(queue text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    messages text := format('pgmq.%I', 'q_' || queue);
    archive  text := format('pgmq.%I', 'a_' || queue);
begin
    if to_regrole('tasker_orchestration') is not null then
        execute format('grant select, insert, update, delete on %s, %s to tasker_orchestration', messages, archive);
    end if;
    if to_regrole('tasker_worker') is not null then
        if queue = 'step_results' then
            execute format('grant insert on %s to tasker_worker', messages);
        elsif queue like 'worker%' then
            execute format('grant select, update, delete on %s to tasker_worker', messages);
            execute format('grant select (msg_id), insert on %s to tasker_worker', archive);
        end if;
    end if;
    if to_regrole('tasker_readonly') is not null then
        execute format('grant select on %s, %s to tasker_readonly', messages, archive);
    end if;
end
$$;
comment on function tasker.grant_queue(text) is 'Lets the roles of `tasker db roles`, where there are such, do with a queue what they are for.';
revoke execute on function tasker.grant_queue(text) from public;

create function tasker.create_queue(queue text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if queue !~ '^[a-z0-9_]{1,47}$' then
        raise exception '% is no name of a queue', queue using errcode = 'invalid_parameter_value';
    end if;
    perform pgmq.create(queue);
    execute format('alter table pgmq.%I set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0,
                    autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0,
                    autovacuum_analyze_scale_factor = 0.0, autovacuum_analyze_threshold = 5000)', 'q_' || queue);
    perform tasker.grant_queue(queue);
end
$$;
comment on function tasker.create_queue(text) is 'Creates a queue, with settings that keep a busy one small. For roles that may create no table: it works as the schema''s owner.';
revoke execute on function tasker.create_queue(text) from public;
