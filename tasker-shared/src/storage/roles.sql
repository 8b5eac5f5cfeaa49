-- Roles of Tasker, each with what it needs and no more. Run as the owner of the schema, who may create roles; run it again
-- after every `tasker db migrate`. The roles cannot log in: grant them to users of your own, such as
--
--     create role worker_1 login password '...' in role tasker_worker;
--
--   tasker_orchestration  the orchestration service
--   tasker_worker         workers: claim, report, say that they live
--   tasker_submit         applications that submit tasks by SQL: tasker.submit and nothing else
--   tasker_readonly       people and dashboards: everything but API keys and the audit

do $$
declare
    role text;
begin
    foreach role in array '{tasker_orchestration,tasker_worker,tasker_submit,tasker_readonly}'::text[] loop
        begin
            if to_regrole(role) is null then
                execute format('create role %I nologin', role);
            end if;
        exception when duplicate_object or unique_violation then
            null; -- somebody else was as quick
        end;
    end loop;
end
$$;

-- Begin with nothing, so that what is granted below is all there is.
revoke all on all tables in schema tasker, pgmq from tasker_orchestration, tasker_worker, tasker_submit, tasker_readonly;
revoke all on all sequences in schema tasker, pgmq from tasker_orchestration, tasker_worker, tasker_submit, tasker_readonly;
revoke all on all functions in schema tasker from public, tasker_orchestration, tasker_worker, tasker_submit, tasker_readonly;
revoke all on schema tasker, pgmq from public, tasker_orchestration, tasker_worker, tasker_submit, tasker_readonly;

grant usage on schema tasker to tasker_orchestration, tasker_worker, tasker_submit, tasker_readonly;
grant usage on schema pgmq to tasker_orchestration, tasker_worker, tasker_readonly;

-- Orchestration works on all tables. It changes no entry of the audit, of which it removes old ones, and not the schema, and
-- makes queues through a function.
grant select, insert, update, delete on all tables in schema tasker to tasker_orchestration;
revoke insert, update, delete on tasker._sqlx_migrations from tasker_orchestration;
-- Old entries are locked before they are removed, which asks for the right to change some column; the table refuses changes.
revoke update on tasker.audit_log from tasker_orchestration;
grant update (reason) on tasker.audit_log to tasker_orchestration;
revoke update, delete on tasker.api_keys from tasker_orchestration;
grant update (revoked_at) on tasker.api_keys to tasker_orchestration;
grant usage, select on all sequences in schema tasker to tasker_orchestration;
grant execute on all functions in schema tasker to tasker_orchestration;
revoke execute on function tasker.grant_queue(text) from tasker_orchestration;
grant select on all tables in schema pgmq to tasker_orchestration;

-- A worker claims steps, reports them and extends its leases. It writes no template, deletes no task, reads no key.
grant select on tasker._sqlx_migrations, tasker.compatibility, tasker.namespaces, tasker.templates, tasker.tasks, tasker.steps, tasker.step_edges,
    tasker.workers to tasker_worker;
-- A task that is paused is locked while its steps are withdrawn, which asks for the right to change some column.
grant update (source_system) on tasker.tasks to tasker_worker;
grant update (state, attempt, worker_id, outcome, result, error, progress, enqueued_at, started_at, reported_at)
    on tasker.steps to tasker_worker;
grant insert (task_id, step_id, from_state, to_state, attempt, actor, reason) on tasker.step_transitions to tasker_worker;
grant insert (id, reason, queue, namespace, message, headers, detail, read_count) on tasker.dead_letters to tasker_worker;
grant insert, update, delete on tasker.workers to tasker_worker;
-- Permits that limit how many steps run at once are taken with the claim and given back with the report.
grant select on tasker.limits, tasker.template_steps to tasker_worker;
grant select, insert, update, delete on tasker.permits, tasker.permit_waits to tasker_worker;
grant usage on sequence tasker.transition_id to tasker_worker;
grant execute on function tasker.uuid_v7(), tasker.authenticate_key(text, bytea) to tasker_worker;

-- It moves steps that wait for a worker or run, to where a worker moves them, and signs as one. Whoever owns the tables is not bound.
do $$
declare
    tables constant text[] := '{steps,step_transitions,dead_letters}';
    name   text;
    rule   record;
begin
    foreach name in array tables loop
        execute format('alter table tasker.%I enable row level security', name);
    end loop;
    for rule in select tablename, policyname from pg_policies where schemaname = 'tasker' and tablename = any (tables) loop
        execute format('drop policy %I on tasker.%I', rule.policyname, rule.tablename);
    end loop;
    foreach name in array tables loop
        execute format('create policy who_may_read_sees_all on tasker.%I for select using (true)', name);
        execute format('create policy orchestration on tasker.%I to tasker_orchestration using (true) with check (true)', name);
    end loop;
end
$$;
create policy worker on tasker.steps for update to tasker_worker
    using (state in ('enqueued', 'in_progress'))
    with check (state in ('in_progress', 'reported', 'enqueued', 'pending'));
create policy worker on tasker.step_transitions for insert to tasker_worker
    with check (actor like 'worker:%' and to_state in ('in_progress', 'reported', 'enqueued', 'pending'));
create policy worker on tasker.dead_letters for insert to tasker_worker with check (reason = 'unreadable');

-- Readers see everything but keys and the audit.
grant select on all tables in schema tasker, pgmq to tasker_readonly;
revoke select on tasker.api_keys, tasker.audit_log from tasker_readonly;

-- A submitter has one function, which then works with the rights of its owner, on names that nobody can put before its own.
do $$
declare
    function regprocedure;
begin
    for function in
        select p.oid from pg_proc p where p.pronamespace = 'tasker'::regnamespace and p.proname = 'submit'
    loop
        execute format('alter function %s security definer set search_path = pg_catalog, pg_temp', function);
        execute format('grant execute on function %s to tasker_submit', function);
    end loop;
end
$$;

-- PGMQ's list of its own versions is there only where PGMQ was installed from SQL.
do $$
begin
    if to_regclass('pgmq.__pgmq_migrations') is not null then
        grant select on pgmq.__pgmq_migrations to tasker_worker;
    end if;
end
$$;

select tasker.grant_queue(queue_name) from pgmq.meta;
