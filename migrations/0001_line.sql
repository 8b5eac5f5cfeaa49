-- The line: templates, tasks, steps, their history, and what waits for a time.
-- Written for PostgreSQL 14 and later. PGMQ's own objects are installed before this runs.

create schema if not exists tasker;

create table tasker.namespaces (
    name       text primary key,
    queue      text not null unique,
    created_at timestamptz not null default clock_timestamp()
);
comment on table tasker.namespaces is 'Groups of templates that the same workers run; each has a queue of its own.';
comment on column tasker.namespaces.name is 'The name in templates and submissions.';
comment on column tasker.namespaces.queue is 'The PGMQ queue that carries the steps of this namespace.';
comment on column tasker.namespaces.created_at is 'When its first template was registered.';

create table tasker.templates (
    id                uuid primary key,
    namespace         text not null references tasker.namespaces (name),
    name              text not null,
    version           text not null,
    definition        jsonb not null,
    source            text not null,
    checksum          text not null,
    identity_strategy text not null check (identity_strategy in ('always_unique', 'caller_provided', 'strict')),
    created_at        timestamptz not null default clock_timestamp(),
    unique (namespace, name, version)
);
comment on table tasker.templates is 'Registered templates. A row never changes; a changed definition that no task uses is a new row.';
comment on column tasker.templates.id is 'UUIDv7. Names one definition for ever, so that services may keep it in memory.';
comment on column tasker.templates.namespace is 'The namespace: which workers run it.';
comment on column tasker.templates.name is 'The name, unique in the namespace together with the version.';
comment on column tasker.templates.version is 'The version.';
comment on column tasker.templates.definition is 'The normalized definition.';
comment on column tasker.templates.source is 'The text as it was registered.';
comment on column tasker.templates.checksum is 'SHA-256 of the normalized definition, in hexadecimal.';
comment on column tasker.templates.identity_strategy is 'When two submissions are the same task.';
comment on column tasker.templates.created_at is 'When it was registered; the newest row is the default version.';

create table tasker.tasks (
    id                    uuid primary key,
    template_id           uuid not null references tasker.templates (id),
    namespace             text not null,
    name                  text not null,
    version               text not null,
    environment           text not null default '',
    state                 text not null,
    input                 jsonb not null,
    priority              smallint not null default 0 check (priority between -100 and 100),
    tags                  text[] not null default '{}',
    correlation_id        uuid not null,
    parent_correlation_id uuid,
    traceparent           text,
    identity_hash         bytea,
    idempotency_key       text,
    initiator             text,
    source_system         text,
    reason                text,
    run_at                timestamptz,
    remaining_steps       integer not null default 0 check (remaining_steps >= 0),
    active_steps          integer not null default 0 check (active_steps >= 0),
    error                 jsonb,
    created_at            timestamptz not null default clock_timestamp(),
    started_at            timestamptz,
    finished_at           timestamptz,
    check (state in ('pending', 'in_progress', 'paused', 'complete', 'error', 'cancelled', 'resolved_manually')),
    check ((state in ('complete', 'error', 'cancelled', 'resolved_manually')) = (finished_at is not null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
comment on table tasker.tasks is 'Tasks with their current state.';
comment on column tasker.tasks.id is 'UUIDv7, made by the application or by tasker.submit.';
comment on column tasker.tasks.template_id is 'The definition it runs, from submission to the end.';
comment on column tasker.tasks.namespace is 'Of the template.';
comment on column tasker.tasks.name is 'Of the template; the task type.';
comment on column tasker.tasks.version is 'Of the template.';
comment on column tasker.tasks.environment is 'Whose overrides of the template apply; set when the steps are made.';
comment on column tasker.tasks.state is 'Current state; changed by compare-and-swap only.';
comment on column tasker.tasks.input is 'What it was submitted with.';
comment on column tasker.tasks.priority is 'Higher goes first.';
comment on column tasker.tasks.tags is 'Free words.';
comment on column tasker.tasks.correlation_id is 'Joins the task with its trace (same 16 bytes), logs and metrics.';
comment on column tasker.tasks.parent_correlation_id is 'Of the work that caused it.';
comment on column tasker.tasks.traceparent is 'W3C trace context of the caller.';
comment on column tasker.tasks.identity_hash is 'SHA-256 that makes a repeat the same task; null when every submission is a new one.';
comment on column tasker.tasks.idempotency_key is 'The key given by the caller.';
comment on column tasker.tasks.initiator is 'Who asked.';
comment on column tasker.tasks.source_system is 'Which system asked.';
comment on column tasker.tasks.reason is 'Why.';
comment on column tasker.tasks.run_at is 'Not before this time.';
comment on column tasker.tasks.remaining_steps is 'Steps that are not complete, skipped or resolved by hand.';
comment on column tasker.tasks.active_steps is 'Remaining steps that have not ended and wait for no parent.';
comment on column tasker.tasks.error is 'Why it failed.';
comment on column tasker.tasks.created_at is 'When it was accepted.';
comment on column tasker.tasks.started_at is 'When its steps were made.';
comment on column tasker.tasks.finished_at is 'When it reached its final state.';
create unique index tasks_identity on tasker.tasks (identity_hash) where identity_hash is not null;
comment on index tasker.tasks_identity is 'One task for one identity.';
create index tasks_correlation on tasker.tasks (correlation_id);
comment on index tasker.tasks_correlation is 'Finds tasks by correlation id.';
create index tasks_open on tasker.tasks (id) where finished_at is null;
comment on index tasker.tasks_open is 'The repair sweep, the gauges and lists of tasks that have not ended.';
create index tasks_template on tasker.tasks (template_id, id);
comment on index tasker.tasks_template is 'Whether a template is used, and lists of its tasks.';

create table tasker.steps (
    id           uuid primary key,
    task_id      uuid not null references tasker.tasks (id) on delete cascade,
    name         text not null,
    position     integer not null,
    state        text not null,
    waiting_on   integer not null check (waiting_on >= 0),
    attempt      integer not null default 0,
    failures     integer not null default 0,
    max_attempts integer not null,
    timeout_ms   bigint not null,
    worker_id    uuid,
    outcome      text check (outcome in ('success', 'error', 'timeout', 'cancelled', 'skipped')),
    result       jsonb,
    error        jsonb,
    progress     jsonb,
    retry_at     timestamptz,
    enqueued_at  timestamptz,
    started_at   timestamptz,
    reported_at  timestamptz,
    finished_at  timestamptz,
    unique (task_id, name),
    check (state in ('pending', 'enqueued', 'in_progress', 'reported', 'waiting_for_retry',
                     'complete', 'error', 'cancelled', 'skipped', 'resolved_manually')),
    check ((state in ('complete', 'error', 'cancelled', 'skipped', 'resolved_manually')) = (finished_at is not null)),
    check ((state = 'waiting_for_retry') = (retry_at is not null))
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
comment on table tasker.steps is 'Steps with their current state. No index on a column that changes, so that updates stay on their page.';
comment on column tasker.steps.id is 'UUIDv7.';
comment on column tasker.steps.task_id is 'The task.';
comment on column tasker.steps.name is 'Unique in the task.';
comment on column tasker.steps.position is 'Its place in the template, from 0.';
comment on column tasker.steps.state is 'Current state; changed by compare-and-swap only.';
comment on column tasker.steps.waiting_on is 'Parents that are not yet complete, skipped or resolved by hand.';
comment on column tasker.steps.attempt is 'How often it was claimed: the fence. A report names the attempt it belongs to.';
comment on column tasker.steps.failures is 'How often it failed since it was made or reopened.';
comment on column tasker.steps.max_attempts is 'The largest number of failures before that is final.';
comment on column tasker.steps.timeout_ms is 'The longest run of its handler, in milliseconds.';
comment on column tasker.steps.worker_id is 'Who claimed it last.';
comment on column tasker.steps.outcome is 'How its last run ended.';
comment on column tasker.steps.result is 'What it returned.';
comment on column tasker.steps.error is 'How it failed last.';
comment on column tasker.steps.progress is 'What its handler said of its progress.';
comment on column tasker.steps.retry_at is 'When it runs again.';
comment on column tasker.steps.enqueued_at is 'When it was put on its queue last.';
comment on column tasker.steps.started_at is 'When it was claimed last.';
comment on column tasker.steps.reported_at is 'When its last outcome was stored.';
comment on column tasker.steps.finished_at is 'When it reached its final state.';

create table tasker.step_edges (
    parent_id uuid not null,
    child_id  uuid not null,
    task_id   uuid not null references tasker.tasks (id) on delete cascade,
    primary key (parent_id, child_id)
);
comment on table tasker.step_edges is 'The child waits for the parent. Written once, with the steps.';
comment on column tasker.step_edges.parent_id is 'The step that comes first.';
comment on column tasker.step_edges.child_id is 'The step that waits.';
comment on column tasker.step_edges.task_id is 'The task of both.';
create index step_edges_child on tasker.step_edges (child_id);
comment on index tasker.step_edges_child is 'The parents'' results for a claimed step.';
create index step_edges_task on tasker.step_edges (task_id);
comment on index tasker.step_edges_task is 'A whole task''s edges: shown to people, and deleted with it.';

create sequence tasker.transition_id;
comment on sequence tasker.transition_id is 'Orders the transitions of a task and its steps together.';

create table tasker.task_transitions (
    task_id    uuid not null,
    id         bigint not null default nextval('tasker.transition_id'),
    from_state text,
    to_state   text not null,
    actor      text not null,
    reason     text,
    at         timestamptz not null default clock_timestamp(),
    primary key (task_id, id)
);
comment on table tasker.task_transitions is 'Every state change of every task. Append-only.';
comment on column tasker.task_transitions.task_id is 'The task.';
comment on column tasker.task_transitions.id is 'The order.';
comment on column tasker.task_transitions.from_state is 'The state before; null at creation.';
comment on column tasker.task_transitions.to_state is 'The state after.';
comment on column tasker.task_transitions.actor is 'Who: orchestration, sql, or operator:NAME.';
comment on column tasker.task_transitions.reason is 'Why, where somebody or something said so.';
comment on column tasker.task_transitions.at is 'When, by the database''s clock.';

create table tasker.step_transitions (
    task_id    uuid not null,
    id         bigint not null default nextval('tasker.transition_id'),
    step_id    uuid not null,
    from_state text not null,
    to_state   text not null,
    attempt    integer not null,
    actor      text not null,
    reason     text,
    at         timestamptz not null default clock_timestamp(),
    primary key (task_id, id)
);
comment on table tasker.step_transitions is 'Every state change of every step. Append-only.';
comment on column tasker.step_transitions.task_id is 'The task.';
comment on column tasker.step_transitions.id is 'The order.';
comment on column tasker.step_transitions.step_id is 'The step.';
comment on column tasker.step_transitions.from_state is 'The state before.';
comment on column tasker.step_transitions.to_state is 'The state after.';
comment on column tasker.step_transitions.attempt is 'The step''s attempt after the change.';
comment on column tasker.step_transitions.actor is 'Who: orchestration, worker:ID, or operator:NAME.';
comment on column tasker.step_transitions.reason is 'Why, where somebody or something said so.';
comment on column tasker.step_transitions.at is 'When, by the database''s clock.';

-- The legal edges, repeated from the two state machines; a test compares them.
alter table tasker.task_transitions add constraint task_transition_is_legal check (
    coalesce(from_state, '') || '>' || to_state = any ('{
        >pending,pending>in_progress,pending>error,pending>cancelled,
        in_progress>complete,in_progress>error,in_progress>cancelled,in_progress>paused,
        paused>in_progress,paused>error,paused>complete,paused>cancelled,
        error>in_progress,error>resolved_manually}'::text[]));
alter table tasker.step_transitions add constraint step_transition_is_legal check (
    from_state || '>' || to_state = any ('{
        pending>enqueued,pending>cancelled,pending>skipped,pending>resolved_manually,
        enqueued>in_progress,enqueued>pending,enqueued>cancelled,enqueued>resolved_manually,
        in_progress>in_progress,in_progress>enqueued,in_progress>reported,in_progress>cancelled,in_progress>resolved_manually,
        reported>complete,reported>waiting_for_retry,reported>error,reported>cancelled,
        waiting_for_retry>enqueued,waiting_for_retry>cancelled,waiting_for_retry>resolved_manually,
        error>enqueued,error>resolved_manually}'::text[]));

create table tasker.timers (
    kind    text not null check (kind in ('start', 'retry', 'deadline')),
    subject uuid not null,
    task_id uuid not null references tasker.tasks (id) on delete cascade,
    due_at  timestamptz not null,
    primary key (kind, subject)
);
comment on table tasker.timers is 'What is due later. A row is deleted in the transaction that acts on it.';
comment on column tasker.timers.kind is 'start: a delayed task; retry: a step after its back-off; deadline: a task that lasts too long.';
comment on column tasker.timers.subject is 'The task, or for a retry the step.';
comment on column tasker.timers.task_id is 'The task.';
comment on column tasker.timers.due_at is 'When, by the database''s clock.';
create index timers_due on tasker.timers (due_at);
comment on index tasker.timers_due is 'The timer sweep: what is due, and what is due next.';
create index timers_task on tasker.timers (task_id);
comment on index tasker.timers_task is 'Deletes a task''s timers when it ends.';

create table tasker.workers (
    id           uuid primary key,
    name         text not null,
    namespaces   text[] not null,
    handlers     text[] not null,
    version      text not null,
    started_at   timestamptz not null default clock_timestamp(),
    heartbeat_at timestamptz not null default clock_timestamp(),
    stopped_at   timestamptz
);
comment on table tasker.workers is 'Worker processes.';
comment on column tasker.workers.id is 'One process.';
comment on column tasker.workers.name is 'For people.';
comment on column tasker.workers.namespaces is 'The namespaces it serves; * is every one.';
comment on column tasker.workers.handlers is 'The handlers it has.';
comment on column tasker.workers.version is 'The version of the program.';
comment on column tasker.workers.started_at is 'When it started.';
comment on column tasker.workers.heartbeat_at is 'When it was heard of last.';
comment on column tasker.workers.stopped_at is 'When it said that it stops.';

create table tasker.dead_letters (
    id          uuid primary key,
    reason      text not null,
    queue       text not null,
    message     jsonb not null,
    headers     jsonb,
    detail      text not null,
    task_id     uuid,
    step_id     uuid,
    read_count  integer not null,
    created_at  timestamptz not null default clock_timestamp(),
    resolved_at timestamptz,
    resolution  text
);
comment on table tasker.dead_letters is 'Messages and steps that were parked because they could not be dealt with.';
comment on column tasker.dead_letters.id is 'UUIDv7.';
comment on column tasker.dead_letters.reason is 'unreadable: not understood; poison: it failed or took its reader down too often.';
comment on column tasker.dead_letters.queue is 'Where it was.';
comment on column tasker.dead_letters.message is 'The message as it was.';
comment on column tasker.dead_letters.headers is 'Its headers.';
comment on column tasker.dead_letters.detail is 'What went wrong last.';
comment on column tasker.dead_letters.task_id is 'The task, where it is known.';
comment on column tasker.dead_letters.step_id is 'The step, where it is known.';
comment on column tasker.dead_letters.read_count is 'How often it was read.';
comment on column tasker.dead_letters.created_at is 'When it was parked.';
comment on column tasker.dead_letters.resolved_at is 'When somebody dealt with it.';
comment on column tasker.dead_letters.resolution is 'How.';

create function tasker.uuid_v7() returns uuid
language sql volatile
as $$
    -- 48 bits of milliseconds, version 7, the rest random (RFC 9562, section 5.7)
    select encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                    from 1 for 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;
comment on function tasker.uuid_v7() is 'A time-ordered id, for rows that SQL makes.';

create function tasker.canonical_json(value jsonb) returns text
language plpgsql immutable strict parallel safe
as $$
begin
    return case jsonb_typeof(value)
        when 'object' then (
            select '{' || coalesce(string_agg(to_json(e.key)::text || ':' || tasker.canonical_json(e.value), ',' order by e.key collate "C"), '') || '}'
            from jsonb_each(value) e)
        when 'array' then (
            select '[' || coalesce(string_agg(tasker.canonical_json(e.value), ',' order by e.ordinality), '') || ']'
            from jsonb_array_elements(value) with ordinality e)
        when 'number' then trim_scale((value #>> '{}')::numeric)::text
        else value::text
    end;
end
$$;
comment on function tasker.canonical_json(jsonb) is 'One text for equal values: keys sorted by bytes, no white space, numbers without trailing zeros.';

create function tasker.identity_hash(template tasker.templates, idempotency_key text, input jsonb) returns bytea
language sql immutable parallel safe
as $$
    select case
        when idempotency_key is not null then
            sha256(convert_to(jsonb_build_array(template.namespace, template.name, template.version, 'key', idempotency_key)::text, 'UTF8'))
        when template.identity_strategy = 'strict' then
            sha256(convert_to(jsonb_build_array(template.namespace, template.name, template.version, 'input')::text || tasker.canonical_json(input), 'UTF8'))
    end
$$;
comment on function tasker.identity_hash(tasker.templates, text, jsonb) is 'The identity of a submission; null when every one is a new task.';

create function tasker.submit(
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
    insert into tasker.tasks (id, template_id, namespace, name, version, state, input, priority, tags,
                              correlation_id, parent_correlation_id, traceparent, identity_hash, idempotency_key,
                              initiator, source_system, reason, run_at)
    values (task, template.id, template.namespace, template.name, template.version, 'pending', submit.input,
            submit.priority::smallint, submit.tags, coalesce(submit.correlation_id, trace, tasker.uuid_v7()),
            submit.parent_correlation_id, submit.traceparent, identity, submit.idempotency_key, submit.initiator,
            submit.source_system, submit.reason, submit.run_at)
    on conflict (identity_hash) where identity_hash is not null do nothing;
    if not found then
        select t.id into existing from tasker.tasks t where t.identity_hash = identity;
        return existing;
    end if;
    insert into tasker.task_transitions (task_id, to_state, actor, reason)
    values (task, 'pending', 'sql', submit.reason);
    insert into pgmq.q_task_requests (vt, message) values (clock_timestamp(), jsonb_build_object('task_id', task));
    return task;
end
$$;
comment on function tasker.submit(text, text, jsonb, text, text, integer, text[], timestamptz, uuid, uuid, text, text, text, text)
    is 'Submits a task in the caller''s transaction: it exists if and only if that commits. Returns its id, or that of the task with the same identity.';
