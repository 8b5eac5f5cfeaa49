-- Limits: dead letters that are dealt with, permits for steps that run at once, and steps that stall.

-- Parking: a step is taken off the line by an operator, or because it stalls or is overdue. The old edges stay legal, so the
-- rows that exist need no look.
alter table tasker.step_transitions drop constraint step_transition_is_legal;
alter table tasker.step_transitions add constraint step_transition_is_legal check (
    from_state || '>' || to_state = any ('{
        pending>enqueued,pending>cancelled,pending>skipped,pending>resolved_manually,
        enqueued>in_progress,enqueued>pending,enqueued>cancelled,enqueued>resolved_manually,enqueued>error,
        in_progress>in_progress,in_progress>enqueued,in_progress>reported,in_progress>cancelled,in_progress>resolved_manually,
        in_progress>error,
        reported>complete,reported>waiting_for_retry,reported>error,reported>cancelled,
        waiting_for_retry>enqueued,waiting_for_retry>cancelled,waiting_for_retry>resolved_manually,waiting_for_retry>error,
        error>enqueued,error>resolved_manually}'::text[])) not valid;

alter table tasker.steps
    add column stalls        integer not null default 0,
    add column missing_since timestamptz;
comment on column tasker.steps.stalls is 'How often it stood still and was enqueued again, since it was made or reopened.';
comment on column tasker.steps.missing_since is 'Since when every worker that claimed it lacked its handler.';

alter table tasker.dead_letters
    add column namespace   text,
    add column snapshot    jsonb,
    add column parked_by   text not null default 'tasker',
    add column resolved_by text,
    add column note        text,
    add constraint dead_letters_reason check (reason in ('poison', 'unreadable', 'handler_not_found', 'stalled', 'manual')),
    add constraint dead_letters_resolution check (resolution in ('redriven', 'resolved', 'discarded'));
comment on column tasker.dead_letters.reason is 'unreadable: not understood; poison: it failed or took its reader down too often; handler_not_found: no worker had its handler for too long; stalled: it stood still too often; manual: an operator parked it.';
comment on column tasker.dead_letters.namespace is 'The namespace, where it is known.';
comment on column tasker.dead_letters.snapshot is 'Task and step as they were when it was parked.';
comment on column tasker.dead_letters.parked_by is 'Who parked it: tasker, or operator:NAME.';
comment on column tasker.dead_letters.resolution is 'redriven: the work was put back; resolved: dealt with otherwise; discarded: given up.';
comment on column tasker.dead_letters.resolved_by is 'Who dealt with it: operator:NAME.';
comment on column tasker.dead_letters.note is 'What they said.';
create index dead_letters_open_step on tasker.dead_letters (step_id) where resolved_at is null;
comment on index tasker.dead_letters_open_step is 'Whether a step is parked: the repair sweep, and what people see.';

alter table tasker.namespaces add column is_limited boolean not null default false;
comment on column tasker.namespaces.is_limited is 'Whether a claim has to look for limits: there is one of an operator or of a template.';

alter table tasker.templates add column max_queued_ms bigint
    generated always as ((definition #>> '{lifecycle,max_queued_ms}')::bigint) stored;
comment on column tasker.templates.max_queued_ms is 'The longest time that its steps may wait on their queue, in milliseconds.';

create table tasker.template_steps (
    template_id       uuid not null references tasker.templates (id) on delete cascade,
    name              text not null,
    handler           text not null,
    concurrency_limit integer,
    concurrency_key   text,
    primary key (template_id, name)
);
comment on table tasker.template_steps is 'What a claim asks about a step''s definition; made from the definition by a trigger.';
comment on column tasker.template_steps.template_id is 'The template.';
comment on column tasker.template_steps.name is 'The step.';
comment on column tasker.template_steps.handler is 'The callable that runs it.';
comment on column tasker.template_steps.concurrency_limit is 'How many of it may run at once; null when it does not say.';
comment on column tasker.template_steps.concurrency_key is 'What shares the limit; null when the step has it for itself.';

create function tasker.list_template_steps() returns trigger
language plpgsql
as $$
begin
    insert into tasker.template_steps (template_id, name, handler, concurrency_limit, concurrency_key)
    select new.id, s->>'name', s #>> '{handler,callable}', (s #>> '{concurrency,limit}')::integer, s #>> '{concurrency,key}'
      from jsonb_array_elements(new.definition->'steps') s;
    update tasker.namespaces n set is_limited = true
     where n.name = new.namespace and not n.is_limited
       and exists (select from tasker.template_steps d where d.template_id = new.id and d.concurrency_limit is not null);
    return null;
end
$$;
comment on function tasker.list_template_steps() is 'Lists the steps of a template that was registered, also by a program that does not know of limits.';
create trigger list_template_steps after insert on tasker.templates
    for each row execute function tasker.list_template_steps();
insert into tasker.template_steps (template_id, name, handler)
select t.id, s->>'name', s #>> '{handler,callable}'
  from tasker.templates t cross join jsonb_array_elements(t.definition->'steps') s;

create table tasker.limits (
    namespace text not null references tasker.namespaces (name),
    scope     text not null check (scope = 'namespace' or scope like 'handler:_%'),
    max       integer not null check (max >= 0),
    set_by    text not null,
    reason    text,
    set_at    timestamptz not null default clock_timestamp(),
    primary key (namespace, scope)
);
comment on table tasker.limits is 'How many steps may run at once, as operators set it.';
comment on column tasker.limits.namespace is 'The namespace.';
comment on column tasker.limits.scope is 'namespace: all its steps; handler:NAME: those that this handler runs.';
comment on column tasker.limits.max is 'The limit; 0 lets nothing begin.';
comment on column tasker.limits.set_by is 'Who set it: operator:NAME.';
comment on column tasker.limits.reason is 'Why.';
comment on column tasker.limits.set_at is 'When.';

create table tasker.permits (
    namespace text not null,
    scope     text not null,
    value     text not null default '',
    slot      integer not null,
    step_id   uuid not null,
    attempt   integer not null,
    primary key (namespace, scope, value, slot)
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
comment on table tasker.permits is 'Limited steps that run: one row for each limit that a step counts against. It counts while the step is in_progress with this attempt.';
comment on column tasker.permits.namespace is 'The namespace.';
comment on column tasker.permits.scope is 'What is limited: namespace, handler:NAME, step:TEMPLATE/STEP or key:KEY.';
comment on column tasker.permits.value is 'The value of a key that is taken from the input; else empty.';
comment on column tasker.permits.slot is 'Which of the permits, from 1: two claims cannot both take it.';
comment on column tasker.permits.step_id is 'Who has it.';
comment on column tasker.permits.attempt is 'The attempt that has it.';
create index permits_step on tasker.permits (step_id);
comment on index tasker.permits_step is 'Gives a step''s permits back.';

create table tasker.permit_waits (
    step_id   uuid primary key,
    namespace text not null,
    scope     text not null,
    value     text not null default '',
    max       integer not null,
    msg_id    bigint not null,
    vt        timestamptz not null,
    since     timestamptz not null default clock_timestamp()
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
comment on table tasker.permit_waits is 'Enqueued steps that were set aside until a permit is free. Their messages are hidden meanwhile.';
comment on column tasker.permit_waits.step_id is 'The step.';
comment on column tasker.permit_waits.namespace is 'The namespace.';
comment on column tasker.permit_waits.scope is 'The limit that was reached.';
comment on column tasker.permit_waits.value is 'As in permits.';
comment on column tasker.permit_waits.max is 'The limit as it was then.';
comment on column tasker.permit_waits.msg_id is 'The message.';
comment on column tasker.permit_waits.vt is 'Where the message stood in its queue, and will stand again.';
comment on column tasker.permit_waits.since is 'When it was set aside.';
create index permit_waits_scope on tasker.permit_waits (namespace, scope, value, vt);
comment on index tasker.permit_waits_scope is 'Who is next when a permit becomes free.';
