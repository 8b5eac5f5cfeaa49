-- A submission by SQL always answers with a task, and templates say how long their tasks are kept.

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
    if submit.traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$' then
        trace := substring(submit.traceparent from 4 for 32)::uuid;
    end if;
    identity := tasker.identity_hash(template, submit.idempotency_key, submit.input);
    loop
        insert into tasker.tasks (id, template_id, namespace, name, version, state, input, priority, tags,
                                  correlation_id, parent_correlation_id, traceparent, identity_hash, idempotency_key,
                                  initiator, source_system, reason, run_at)
        values (task, template.id, template.namespace, template.name, template.version, 'pending', submit.input,
                submit.priority::smallint, submit.tags, coalesce(submit.correlation_id, trace, tasker.uuid_v7()),
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

alter table tasker.templates
    add column complete_after_ms bigint generated always as (
        case definition #>> '{retention,complete_after_ms}' when 'never' then -1
             else (definition #>> '{retention,complete_after_ms}')::bigint end) stored,
    add column failed_after_ms bigint generated always as (
        case definition #>> '{retention,failed_after_ms}' when 'never' then -1
             else (definition #>> '{retention,failed_after_ms}')::bigint end) stored;
comment on column tasker.templates.complete_after_ms is 'How long its complete tasks are kept, in milliseconds; -1 is for ever, null is as the settings say.';
comment on column tasker.templates.failed_after_ms is 'The same for its tasks that ended otherwise.';
