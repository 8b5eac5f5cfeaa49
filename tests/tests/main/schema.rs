//! The schema: made from nothing, checked, and as legal as the machines in Rust.

use anyhow::Result;
use sqlx::{PgPool, Row as _};
use std::collections::BTreeSet;
use tasker_shared::{
    step::state::Edge,
    storage::schema,
    task::{TaskEvent, TaskState},
};
use tasker_tests::TestDatabase;

async fn empty() -> Result<(TestDatabase, PgPool)> {
    let database = TestDatabase::empty().await?;
    let pool = PgPool::connect(&database.url).await?;
    Ok((database, pool))
}

async fn made() -> Result<(TestDatabase, PgPool)> {
    let database = TestDatabase::create().await?;
    let pool = PgPool::connect(&database.url).await?;
    Ok((database, pool))
}

async fn close(database: TestDatabase, pool: PgPool) -> Result<()> {
    pool.close().await;
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_database_is_refused_with_what_to_run_and_migrated_once() -> Result<()> {
    let (database, pool) = empty().await?;
    let before = schema::status(&pool).await?;
    assert_eq!((before.pgmq, before.applied.as_slice()), (schema::Pgmq::Absent, [].as_slice()));
    let refused = schema::check(&pool).await.expect_err("nothing is there").to_string();
    assert_eq!(refused, "the database has no Tasker schema; run `tasker db migrate`");
    let after = schema::migrate(&pool).await?;
    assert!(after.is_current() && matches!(after.pgmq, schema::Pgmq::Sql(_)), "{after:?}");
    schema::check(&pool).await?;
    assert_eq!(schema::migrate(&pool).await?, after);
    close(database, pool).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_another_version_is_refused_with_what_to_do_unless_it_says_that_it_is_compatible() -> Result<()> {
    let (database, pool) = made().await?;
    sqlx::query("update tasker.compatibility set compatible_from = 9999").execute(&pool).await?;
    let newer = "insert into tasker._sqlx_migrations (version, description, success, checksum, execution_time)
        values (9999, 'later', true, '', 0)";
    sqlx::query(newer).execute(&pool).await?;
    let says = "the schema has migration 9999, which this program is too old for; use a newer Tasker";
    assert_eq!(schema::check(&pool).await.expect_err("newer").to_string(), says);
    assert_eq!(schema::migrate(&pool).await.expect_err("newer").to_string(), says);
    sqlx::query("update tasker.compatibility set compatible_from = 4").execute(&pool).await?;
    let compatible = schema::check(&pool).await?;
    assert!(compatible.is_usable() && !compatible.is_current());
    assert_eq!(schema::migrate(&pool).await?, compatible, "an older program that can work has nothing to migrate");
    sqlx::query("delete from tasker._sqlx_migrations where version = 9999").execute(&pool).await?;
    schema::check(&pool).await?;
    let last = "delete from tasker._sqlx_migrations where version = (select max(version) from tasker._sqlx_migrations)";
    sqlx::query(last).execute(&pool).await?;
    let refused = schema::check(&pool).await.expect_err("older").to_string();
    assert!(refused.ends_with("run `tasker db migrate`"), "{refused}");
    close(database, pool).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_a_build_that_was_never_released_is_refused_with_what_to_do() -> Result<()> {
    let (database, pool) = made().await?;
    sqlx::query("update tasker._sqlx_migrations set checksum = 'x' where version = 5").execute(&pool).await?;
    let refused = schema::migrate(&pool).await.expect_err("another migration 5").to_string();
    assert!(refused.starts_with("migration 5 of this database is another one than this program's"), "{refused}");
    assert!(refused.contains("another --data-dir"), "{refused}");
    close(database, pool).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_migrate_at_once_take_turns() -> Result<()> {
    let (database, pool) = empty().await?;
    let other = PgPool::connect(&database.url).await?;
    let (a, b) = tokio::join!(schema::migrate(&pool), schema::migrate(&other));
    assert_eq!(a?, b?);
    other.close().await;
    close(database, pool).await
}

/// The `from>to` pairs of a CHECK constraint.
async fn pairs(pool: &PgPool, constraint: &str) -> Result<BTreeSet<String>> {
    let sql = "select pg_get_constraintdef(oid) from pg_constraint where conname = $1";
    let definition: String = sqlx::query_scalar(sql).bind(constraint).fetch_one(pool).await?;
    let list = definition.split(['{', '}']).nth(1).expect("a list").to_owned();
    Ok(list.split(',').map(|pair| pair.trim().trim_matches('"').to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_allows_the_transitions_of_the_two_machines_and_no_others() -> Result<()> {
    let (database, pool) = made().await?;
    let steps: BTreeSet<String> = Edge::all().map(|edge| format!("{}>{}", edge.from, edge.to)).collect();
    assert_eq!(pairs(&pool, "step_transition_is_legal").await?, steps);
    let mut tasks: BTreeSet<String> = TaskState::edges().map(|(from, _, to)| format!("{from}>{to}")).collect();
    tasks.insert(format!(">{}", TaskState::Pending));
    assert_eq!(pairs(&pool, "task_transition_is_legal").await?, tasks);
    assert!(TaskEvent::ALL.iter().all(|event| TaskState::edges().any(|(_, of, _)| of == *event)));
    close(database, pool).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_in_the_schema_has_a_comment() -> Result<()> {
    let (database, pool) = made().await?;
    // keys are explained by their tables
    let missing: Vec<String> = sqlx::query_scalar(
        "select c.relname || coalesce('.' || a.attname, '')
           from pg_class c
           left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'v')
          where c.relnamespace = 'tasker'::regnamespace and c.relname not like '\\_sqlx%'
            and (c.relkind in ('r', 'v', 'S')
                 or c.relkind = 'i' and not exists (select from pg_constraint k where k.conindid = c.oid))
            and (col_description(c.oid, coalesce(a.attnum, 0)) is null and a.attnum is not null
                 or obj_description(c.oid, 'pg_class') is null)
         union all
         select p.proname || '()' from pg_proc p
          where p.pronamespace = 'tasker'::regnamespace and obj_description(p.oid, 'pg_proc') is null",
    )
    .fetch_all(&pool)
    .await?;
    let missing: Vec<_> = missing.into_iter().filter(|name| !name.starts_with("_sqlx")).collect();
    assert!(missing.is_empty(), "{missing:?}");
    close(database, pool).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_index_of_steps_stands_on_a_column_that_changes() -> Result<()> {
    let (database, pool) = made().await?;
    let rows = sqlx::query(
        "select c.relname::text as name, array(
                select a.attname::text from unnest(i.indkey) k join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k
             ) as columns, i.indpred is not null or i.indexprs is not null as has_more
           from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = 'tasker.steps'::regclass",
    )
    .fetch_all(&pool)
    .await?;
    assert!(!rows.is_empty());
    for row in rows {
        let columns: Vec<String> = row.get("columns");
        assert!(columns.iter().all(|c| ["id", "task_id", "name", "position"].contains(&c.as_str())), "{columns:?}");
        assert!(!row.get::<bool, _>("has_more"), "{:?}", row.get::<String, _>("name"));
    }
    close(database, pool).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_of_the_line_have_an_index() -> Result<()> {
    let (database, pool) = made().await?;
    let mut connection = pool.acquire().await?;
    sqlx::query("set enable_seqscan = off").execute(&mut *connection).await?;
    let id = "'00000000-0000-7000-8000-000000000000'";
    for (query, index) in [
        (format!("select 1 from tasker.steps where id = {id}"), "steps_pkey"),
        (format!("select 1 from tasker.steps where task_id = {id}"), "steps_task_id_name_key"),
        (format!("select 1 from tasker.tasks where id = {id}"), "tasks_pkey"),
        (format!("select 1 from tasker.step_edges where parent_id = {id}"), "step_edges_pkey"),
        (format!("select 1 from tasker.step_edges where child_id = {id}"), "step_edges_child"),
        ("select 1 from tasker.tasks where identity_hash = 'x'".to_owned(), "tasks_identity"),
        (format!("select 1 from tasker.tasks where correlation_id = {id}"), "tasks_correlation"),
        ("select 1 from tasker.tasks where finished_at is null".to_owned(), "tasks_open"),
        ("select 1 from tasker.timers where due_at <= now() order by due_at limit 1".to_owned(), "timers_due"),
        (format!("delete from tasker.timers where task_id = {id}"), "timers_task"),
        (format!("select 1 from tasker.step_transitions where task_id = {id}"), "step_transitions_pkey"),
        ("select 1 from pgmq.q_step_results where vt <= now() order by vt limit 1".to_owned(), "q_step_results_vt_idx"),
        ("delete from pgmq.q_step_results where msg_id = any ('{1}')".to_owned(), "q_step_results_pkey"),
    ] {
        let plan: Vec<String> = sqlx::query_scalar(&format!("explain {query}")).fetch_all(&mut *connection).await?;
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{query} does not use {index}:\n{plan}");
    }
    drop(connection);
    close(database, pool).await
}
