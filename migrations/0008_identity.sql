-- An idempotency key is one task of a template, whatever its version. Tasks that are there keep the hash they have, which names a
-- version: to hash them anew would hold every submission back for as long as that takes. What looks for a task knows both.

-- Before tasks are locked: so do submissions.
alter table tasker.templates add column keyed_by_version boolean not null default true;
alter table tasker.templates alter column keyed_by_version set default false;
comment on column tasker.templates.keyed_by_version
    is 'Whether it may have tasks from before migration 8, whose keys count for this version alone; their hashes are looked for too.';

-- Nothing in it changes. It is called stable, as jsonb_build_array is: only then PostgreSQL puts its body in the place of the call.
create function tasker.key_hash(namespace text, name text, idempotency_key text) returns bytea
language sql stable parallel safe
as $$
    select sha256(convert_to(jsonb_build_array(namespace, name, 'key', idempotency_key)::text, 'UTF8'))
$$;
comment on function tasker.key_hash(text, text, text) is 'The identity of a key: of a template in all its versions.';

create function tasker.key_identity(template tasker.templates, idempotency_key text) returns bytea
-- a plan that a session has made while there were few tasks must not read them all later
language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp set enable_seqscan = off
as $$
declare
    versioned bytea[];
    existing  bytea;
begin
    select array_agg(sha256(convert_to(jsonb_build_array(v.namespace, v.name, v.version, 'key', key_identity.idempotency_key)::text, 'UTF8')))
      into versioned
      from tasker.templates v
     where v.namespace = template.namespace and v.name = template.name and v.keyed_by_version;
    if versioned is not null then
        -- of several from before, that of the version asked for; else the newest
        select t.identity_hash into existing from tasker.tasks t
         where t.identity_hash = any (versioned) order by t.version = template.version desc, t.id desc limit 1;
    end if;
    return coalesce(existing, tasker.key_hash(template.namespace, template.name, key_identity.idempotency_key));
end
$$;
comment on function tasker.key_identity(tasker.templates, text)
    is 'The identity under which the task with this key is stored, or will be.';

create or replace function tasker.identity_hash(template tasker.templates, idempotency_key text, input jsonb) returns bytea
language sql stable parallel safe
as $$
    select case
        when idempotency_key is not null then tasker.key_identity(template, idempotency_key)
        when template.identity_strategy = 'strict' then
            sha256(convert_to(jsonb_build_array(template.namespace, template.name, template.version, 'input')::text || tasker.canonical_json(input), 'UTF8'))
    end
$$;

-- Uniqueness is decided by one hash: no task with a key is stored under another any more, so that the others only become fewer.
-- Creating the trigger waits for every transaction that has stored a task.
create function tasker.check_key_identity() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if new.identity_hash = tasker.key_hash(new.namespace, new.name, new.idempotency_key) then
        return new;
    end if;
    if exists (select from tasker.tasks t where t.identity_hash = new.identity_hash) then
        return null; -- as on a conflict: it is a repeat
    end if;
    -- what it met was removed since, or it knows only the hash of before: next time it will know better
    raise exception 'the identity of idempotency_key % has changed at this moment', new.idempotency_key
        using errcode = 'serialization_failure', hint = 'submit the task again';
end
$$;
comment on function tasker.check_key_identity() is 'Stores no task with a key under a hash that names a version.';
create trigger check_key_identity before insert on tasker.tasks
    for each row when (new.idempotency_key is not null) execute function tasker.check_key_identity();
