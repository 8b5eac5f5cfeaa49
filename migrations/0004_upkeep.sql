-- Upkeep: which programs may work on this schema, finished tasks by age, and what is kept of pruned ones.

create table tasker.compatibility (
    singleton       boolean primary key default true check (singleton),
    compatible_from bigint not null
);
comment on table tasker.compatibility is 'Which older programs may work on this schema: one row. A migration that breaks them raises it.';
comment on column tasker.compatibility.singleton is 'Keeps it at one row.';
comment on column tasker.compatibility.compatible_from is 'Programs whose newest migration is this one or a later one may work.';
insert into tasker.compatibility (compatible_from) values (4);

create index tasks_finished on tasker.tasks (finished_at, id) where finished_at is not null;
comment on index tasker.tasks_finished is 'The retention sweep: finished tasks, the oldest first.';
create index if not exists dead_letters_task on tasker.dead_letters (task_id);
comment on index tasker.dead_letters_task is 'What was parked of a task: kept with it, and deleted with it.';

create table tasker.archived_tasks (
    id             uuid primary key,
    namespace      text not null,
    name           text not null,
    version        text not null,
    state          text not null,
    correlation_id uuid not null,
    finished_at    timestamptz not null,
    archived_at    timestamptz not null default clock_timestamp(),
    document       jsonb not null
);
comment on table tasker.archived_tasks is 'Finished tasks that retention has removed, where retention.archive is on.';
comment on column tasker.archived_tasks.id is 'Of the task.';
comment on column tasker.archived_tasks.namespace is 'Of the task.';
comment on column tasker.archived_tasks.name is 'Of the task.';
comment on column tasker.archived_tasks.version is 'Of the task.';
comment on column tasker.archived_tasks.state is 'Its final state.';
comment on column tasker.archived_tasks.correlation_id is 'Of the task.';
comment on column tasker.archived_tasks.finished_at is 'When it reached its final state.';
comment on column tasker.archived_tasks.archived_at is 'When it was removed from the tables of the line.';
comment on column tasker.archived_tasks.document is 'Its row.';
create index archived_tasks_age on tasker.archived_tasks (archived_at);
comment on index tasker.archived_tasks_age is 'The newest first for people, the oldest for the retention sweep.';

create table tasker.archived_rows (
    task_id  uuid not null references tasker.archived_tasks (id) on delete cascade,
    source   text not null,
    position bigint not null,
    document jsonb not null,
    primary key (task_id, source, position)
);
comment on table tasker.archived_rows is 'The rows of archived tasks: a row each, since a task may have more of them than one value can hold.';
comment on column tasker.archived_rows.task_id is 'The task.';
comment on column tasker.archived_rows.source is 'The table: steps, step_edges, task_transitions, step_transitions or dead_letters.';
comment on column tasker.archived_rows.position is 'The order within the table.';
comment on column tasker.archived_rows.document is 'The row.';

-- Tables that were only appended to until retention deletes from them.
alter table tasker.step_edges set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
alter table tasker.task_transitions set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
alter table tasker.step_transitions set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
