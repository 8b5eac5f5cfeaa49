-- What roles of `tasker db roles` write can always be read: no time is infinite, no array begins elsewhere than at one.

-- Names cannot be put before these: each is of the schema and of exactly these types.
create or replace function tasker.uuid_v7() returns uuid
language sql volatile
as $$
    -- 48 bits of milliseconds, version 7, the rest random (RFC 9562, section 5.7)
    select pg_catalog.encode(
        pg_catalog.set_bit(pg_catalog.set_bit(
            pg_catalog.overlay(pg_catalog.uuid_send(pg_catalog.gen_random_uuid()),
                    pg_catalog.substring(pg_catalog.int8send(pg_catalog.floor(
                        pg_catalog.date_part('epoch'::text, pg_catalog.clock_timestamp())
                        operator(pg_catalog.*) 1000::double precision)::bigint), 3),
                    1, 6),
            52::bigint, 1), 53::bigint, 1),
        'hex'::text)::uuid
$$;

-- Not checked for rows that are there: those were written by programs.
alter table tasker.tasks add constraint task_times_can_be_read
    check (run_at between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59Z') not valid;
alter table tasker.steps add constraint step_times_can_be_read
    check (enqueued_at between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59Z'
       and started_at between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59Z'
       and reported_at between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59Z') not valid;
alter table tasker.workers add constraint worker_times_can_be_read
    check (started_at between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59Z'
       and heartbeat_at between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59Z'
       and stopped_at between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59Z') not valid;
alter table tasker.permit_waits add constraint permit_wait_times_can_be_read
    check (since between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59Z'
       and vt between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59Z') not valid;

-- Replacing a function forgets with whose rights it runs, which `tasker db roles` has set.
select set_config('tasker.submit_is_definer', p.prosecdef::text, true)
  from pg_proc p where p.pronamespace = 'tasker'::regnamespace and p.proname = 'submit';

create or replace function tasker.submit(
    namespace             text,
    name                  text,
    input                 jsonb default '{}',
    version               text default null,
    idempotency_key       text default null,
    priority              integer default 0,
    tags                  text[] default '{}',
    run_at                timestamptz default null,
    correlation_id        uuid default null,
    parent_correlation_id uuid default null,
    traceparent           text default null,
    initiator             text default null,
    source_system         text default null,
    reason                text default null
) returns uuid
language plpgsql
as $$
#variable_conflict use_column
declare
    template tasker.templates;
    identity bytea;
    task     uuid := tasker.uuid_v7();
    existing uuid;
    trace    uuid;
    wrong    text;
begin
    select t.* into template from tasker.templates t
     where t.namespace = submit.namespace and t.name = submit.name
       and (submit.version is null or t.version = submit.version)
     order by t.created_at desc, t.id desc limit 1;
    if template.id is null then
        raise exception 'template % is not registered', submit.namespace || '/' || submit.name || coalesce('@' || submit.version, '')
            using errcode = 'no_data_found', hint = 'register it with: tasker template apply FILE';
    end if;
    if template.identity_strategy = 'caller_provided' and submit.idempotency_key is null then
        raise exception 'template %/% asks for an idempotency_key', submit.namespace, submit.name
            using errcode = 'not_null_violation';
    end if;
    if submit.input is null or submit.priority is null or submit.tags is null or array_position(submit.tags, null) is not null then
        raise exception 'input, priority and tags must not be null' using errcode = 'not_null_violation';
    end if;
    if submit.run_at not between '0001-01-01T00:00:00Z' and '9999-12-31T23:59:59Z' then
        raise exception 'run_at must be a time between the years 1 and 9999' using errcode = 'datetime_field_overflow';
    end if;
    if cardinality(submit.tags) > 50 then
        raise exception '% tags; at most 50 are allowed', cardinality(submit.tags) using errcode = 'program_limit_exceeded';
    end if;
    wrong := case
        when octet_length(submit.idempotency_key) not between 1 and 1024 then 'idempotency_key'
        when octet_length(submit.initiator) not between 1 and 1024 then 'initiator'
        when octet_length(submit.source_system) not between 1 and 1024 then 'source_system'
        when octet_length(submit.reason) not between 1 and 1024 then 'reason'
    end;
    if cardinality(submit.tags) > 0 then
        wrong := coalesce(wrong, (select 'tags' from unnest(submit.tags) tag where octet_length(tag) not between 1 and 1024 limit 1));
    end if;
    if wrong is not null then
        raise exception '% must have 1 to 1024 bytes', wrong using errcode = 'string_data_right_truncation';
    end if;
    if submit.traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$' then
        trace := substring(submit.traceparent from 4 for 32)::uuid;
    end if;
    identity := tasker.identity_hash(template, submit.idempotency_key, submit.input);
    loop
        insert into tasker.tasks (id, template_id, namespace, name, version, state, input, priority, tags,
                                  correlation_id, parent_correlation_id, traceparent, identity_hash, idempotency_key,
                                  initiator, source_system, reason, run_at)
        values (task, template.id, template.namespace, template.name, template.version, 'pending', submit.input,
                submit.priority::smallint, array(select unnest(submit.tags)), coalesce(submit.correlation_id, trace, tasker.uuid_v7()),
                submit.parent_correlation_id, submit.traceparent, identity, submit.idempotency_key, submit.initiator,
                submit.source_system, submit.reason, submit.run_at)
        on conflict (identity_hash) where identity_hash is not null do nothing;
        exit when found;
        select t.id into existing from tasker.tasks t where t.identity_hash = identity;
        if existing is not null then
            return existing;
        end if;
        -- retention has removed that task between the two statements: now it can be inserted
    end loop;
    insert into tasker.task_transitions (task_id, to_state, actor, reason)
    values (task, 'pending', 'sql', submit.reason);
    insert into pgmq.q_task_requests (vt, message) values (clock_timestamp(), jsonb_build_object('task_id', task));
    return task;
end
$$;

do $$
declare
    function regprocedure;
begin
    select p.oid into strict function from pg_proc p where p.pronamespace = 'tasker'::regnamespace and p.proname = 'submit';
    if current_setting('tasker.submit_is_definer')::boolean then
        execute format('alter function %s security definer set search_path = pg_catalog, pg_temp', function);
    end if;
end
$$;

-- Versions of a template may limit the same steps differently: whoever frees a permit walks from one limit to the next.
create index permit_waits_next on tasker.permit_waits (namespace, scope, value, max, vt);
comment on index tasker.permit_waits_next is 'Who is next when a permit becomes free.';
drop index tasker.permit_waits_scope;

-- The namespace's row is written in any case: whoever removes the last limit at this moment waits here.
create or replace function tasker.list_template_steps() returns trigger
language plpgsql
as $$
begin
    insert into tasker.template_steps (template_id, name, handler, concurrency_limit, concurrency_key)
    select new.id, s->>'name', s #>> '{handler,callable}', (s #>> '{concurrency,limit}')::integer, s #>> '{concurrency,key}'
      from jsonb_array_elements(new.definition->'steps') s;
    update tasker.namespaces n set is_limited = true
     where n.name = new.namespace
       and exists (select from tasker.template_steps d where d.template_id = new.id and d.concurrency_limit is not null);
    return null;
end
$$;
