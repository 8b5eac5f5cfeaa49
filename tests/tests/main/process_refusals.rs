//! A service that cannot work says why, what to do, and ends with an exit code.

use anyhow::{Result, ensure};
use std::time::Duration;
use tasker_tests::{
    TestDatabase,
    process::{ORCHESTRATION, Process, WORKER, command},
};
use tokio::{net::TcpListener, time::timeout};

const SERVICES: [&str; 2] = [ORCHESTRATION, WORKER];

/// So that a server that is away is soon given up.
const SHORT: (&str, &str) = ("TASKER__DATABASE__STARTUP_TIMEOUT_MS", "300");

/// Runs a service that cannot start; answers with what it wrote.
async fn refused(program: &str, settings: &[(&str, &str)]) -> Result<String> {
    let mut command = command(program)?;
    command.env("TASKER_ENV", "test").envs(settings.iter().copied());
    let output = timeout(Duration::from_secs(20), command.output()).await??;
    let text = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{program} ended with {}: {text}", output.status);
    ensure!(!text.contains('\x1b'), "no colours where nobody sees them: {text}");
    Ok(text)
}

#[tokio::test]
async fn an_empty_database_is_refused_with_what_to_run() -> Result<()> {
    let database = TestDatabase::empty().await?;
    for program in SERVICES {
        let text = refused(program, &[("DATABASE_URL", &database.url)]).await?;
        assert!(text.contains("the database has no Tasker schema; run `tasker db migrate`"), "{text}");
    }
    database.drop().await
}

#[tokio::test]
async fn a_schema_from_the_future_is_refused_with_what_to_do() -> Result<()> {
    let database = TestDatabase::create().await?;
    let pool = sqlx::PgPool::connect(&database.url).await?;
    sqlx::query(
        "insert into tasker._sqlx_migrations (version, description, success, checksum, execution_time)
         values (99999999999999, 'of the future', true, '', 0)",
    )
    .execute(&pool)
    .await?;
    sqlx::query("update tasker.compatibility set compatible_from = 99999999999999").execute(&pool).await?;
    pool.close().await;
    for program in SERVICES {
        let text = refused(program, &[("DATABASE_URL", &database.url)]).await?;
        let expected = "the schema has migration 99999999999999, which this program is too old for; use a newer Tasker";
        assert!(text.contains(expected), "{text}");
    }
    database.drop().await
}

#[tokio::test]
async fn a_missing_database_is_refused_with_the_true_reason_at_once() -> Result<()> {
    let database = TestDatabase::create().await?;
    let unknown = database.url.replace(&database.name, "nowhere");
    for program in SERVICES {
        let none = refused(program, &[]).await?;
        assert!(none.contains("no database is configured; set DATABASE_URL="), "{none}");
        let closed = [("DATABASE_URL", "postgres://u:topsecret@127.0.0.1:1/x"), SHORT];
        let closed = refused(program, &closed).await?;
        assert!(closed.contains("failed to connect to PostgreSQL at 127.0.0.1:1/x: "), "{closed}");
        assert!(closed.contains("Connection refused") && !closed.contains("topsecret"), "{closed}");
        let unknown = refused(program, &[("DATABASE_URL", &unknown)]).await?;
        assert!(unknown.contains("database \"nowhere\" does not exist"), "{unknown}");
    }
    database.drop().await
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() -> Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("postgres://u@{}/x", silent.local_addr()?);
    let settings = [("DATABASE_URL", url.as_str()), ("TASKER__DATABASE__CONNECT_TIMEOUT_MS", "300"), SHORT];
    for program in SERVICES {
        let text = refused(program, &settings).await?;
        assert!(text.contains("no answer within 300ms; check that it runs"), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_setting_is_named_with_where_it_stands_and_what_is_expected() -> Result<()> {
    let root = tempfile::tempdir()?;
    let environment = root.path().join("environments/test");
    std::fs::create_dir_all(&environment)?;
    std::fs::write(environment.join("worker.toml"), "[worker]\nmax_concurrent_steps = 0\nlease = 1\n")?;
    for program in SERVICES {
        let settings = [
            ("TASKER_CONFIG_ROOT", root.path().to_str().expect("a name in UTF-8")),
            ("TASKER__DATABASE__MAX_CONNECTIONS", "many"),
        ];
        let text = refused(program, &settings).await?;
        for expected in [
            "database.max_connections = \"many\" (variable TASKER__DATABASE__MAX_CONNECTIONS): expected a whole number",
            "worker.max_concurrent_steps = 0 (",
            "environments/test/worker.toml): expected a whole number from 1",
            "worker.lease (",
            "did you mean worker.lease_ms?",
        ] {
            assert!(text.contains(expected), "`{expected}` is missing in: {text}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_address_that_other_machines_reach_is_refused_while_authentication_is_off() -> Result<()> {
    let database = TestDatabase::create().await?;
    for (program, key, address) in [
        (ORCHESTRATION, "orchestration.http_address", "0.0.0.0:0"),
        (ORCHESTRATION, "orchestration.metrics_address", "[::]:9464"),
        (WORKER, "worker.http_address", "192.0.2.7:8081"),
        (WORKER, "worker.metrics_address", "[::ffff:192.0.2.7]:9465"),
    ] {
        let variable = format!("TASKER__{}", key.to_uppercase().replace('.', "__"));
        let text = refused(program, &[("DATABASE_URL", &database.url), (&variable, address)]).await?;
        let expected = format!(
            "{program}: {key} = \"{address}\" (variable {variable}): expected a loopback address such as \"127.0.0.1:8080\" while \
             authentication is off; to be reached from other machines, set auth.enabled = true and make a key with `tasker key create`, \
             or, where something else keeps strangers away, set auth.allow_unauthenticated_public_address = true"
        );
        assert_eq!(text.trim_end(), expected);
    }
    for said in ["TASKER__AUTH__ENABLED", "TASKER__AUTH__ALLOW_UNAUTHENTICATED_PUBLIC_ADDRESS"] {
        // with either word the address is taken, here one that is no address of this machine
        let address = ("TASKER__ORCHESTRATION__HTTP_ADDRESS", "192.0.2.7:8080");
        let text = refused(ORCHESTRATION, &[("DATABASE_URL", &database.url), address, (said, "true")]).await?;
        assert!(text.contains("cannot listen on 192.0.2.7:8080"), "{said}: {text}");
    }
    database.drop().await
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_setting_to_change() -> Result<()> {
    let database = TestDatabase::create().await?;
    let taken = TcpListener::bind("127.0.0.1:0").await?;
    let address = taken.local_addr()?.to_string();
    for (program, variable, setting) in [
        (ORCHESTRATION, "TASKER__ORCHESTRATION__HTTP_ADDRESS", "orchestration.http_address"),
        (WORKER, "TASKER__WORKER__HTTP_ADDRESS", "worker.http_address"),
    ] {
        let text = refused(program, &[("DATABASE_URL", &database.url), (variable, &address)]).await?;
        let expected = format!("cannot listen on {address}: address in use; set {setting} to an address that is free");
        assert!(text.contains(&expected), "{text}");
    }
    database.drop().await
}

#[tokio::test]
async fn an_argument_that_is_not_known_is_refused() -> Result<()> {
    for program in SERVICES {
        let output = command(program)?.arg("--port=1").output().await?;
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stderr)?;
        assert!(text.contains(&format!("unexpected argument `--port=1`; `{program} --help`")), "{text}");
        let help = String::from_utf8(command(program)?.arg("--help").output().await?.stdout)?;
        assert!(help.contains("DATABASE_URL") && help.contains("TASKER_ENV"), "{help}");
    }
    Ok(())
}

#[tokio::test]
async fn a_service_that_is_stopped_while_it_waits_for_postgresql_has_ended_well() -> Result<()> {
    for program in SERVICES {
        let patient = ("TASKER__DATABASE__STARTUP_TIMEOUT_MS", "60000");
        let mut service = Process::service(program, "postgres://nobody@127.0.0.1:1/nothing", &[patient])?;
        service.wrote("PostgreSQL cannot be used yet").await?;
        service.drain().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_service_that_is_stopped_while_postgresql_does_not_answer_has_ended_well() -> Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("postgres://nobody@{}/nothing", silent.local_addr()?);
    for program in SERVICES {
        let patient = ("TASKER__DATABASE__CONNECT_TIMEOUT_MS", "60000");
        let mut service = Process::service(program, &url, &[patient])?;
        let _connection = timeout(Duration::from_secs(20), silent.accept()).await??;
        service.drain().await?;
    }
    Ok(())
}
