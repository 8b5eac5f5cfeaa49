//! What is secret stays so: planted secrets are in no log, no answer and no display.

use crate::access::{bearer, key};
use anyhow::{Result, ensure};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use std::{fs, os::unix::fs::PermissionsExt as _, process::Stdio};
use tasker_tests::{
    TestDatabase,
    process::{ORCHESTRATION, Process, TASKER, WORKER, command},
};

const PASSWORD: &str = "planted-password";
const HEADER: &str = "planted-header";
const USERINFO: &str = "planted-userinfo";
const PARAMETER: &str = "planted-parameter";

/// The last part of a key: the prefix may be shown.
fn secret(key: &str) -> &str {
    key.rsplit('_').next().unwrap_or_default()
}

fn clean(what: &str, text: &str, secrets: &[&str]) -> Result<()> {
    for secret in secrets {
        ensure!(!text.contains(secret), "{what} has `{secret}`:\n{text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_the_logs_of_the_services_however_much_they_log() -> Result<()> {
    let database = TestDatabase::create().await?;
    let user = format!("secret_{}", database.name);
    let mut owner = PgConnection::connect(&database.url).await?;
    sqlx::raw_sql(&format!("create role {user} superuser login password '{PASSWORD}'")).execute(&mut owner).await?;
    let mut url = reqwest::Url::parse(&database.url)?;
    let set = url.set_username(&user).and_then(|()| url.set_password(Some(PASSWORD)));
    ensure!(set.is_ok(), "the URL takes a user");

    let known = key(&database.url, "known", &["*"], &["*"]).await?;
    let unknown = tasker_shared::access::ApiKey::generate().expose().to_owned();
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.cGxhbnRlZC1zaWduYXR1cmU";
    url.query_pairs_mut().append_pair("sslpassword", PARAMETER).append_pair("PASSWORD", PARAMETER);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let collector = listener.local_addr()?;
    let busy = axum::Router::new().fallback(async || axum::http::StatusCode::SERVICE_UNAVAILABLE);
    tokio::spawn(async move { axum::serve(listener, busy).await });
    let jwks = format!("http://{collector}/jwks?token={PARAMETER}");
    let settings = [
        ("RUST_LOG", "trace,opentelemetry=trace"),
        ("TASKER__AUTH__JWT__JWKS_URL", &*jwks),
        ("TASKER__AUTH__JWT__ISSUER", "issuer"),
        ("TASKER__AUTH__JWT__AUDIENCE", "audience"),
        ("TASKER__AUTH__ENABLED", "true"),
        ("TASKER__TELEMETRY__OPENTELEMETRY__ENABLED", "true"),
        ("TASKER__TELEMETRY__LOGS__OTLP", "true"),
        ("TASKER__TELEMETRY__OPENTELEMETRY__EXPORT_INTERVAL_MS", "100"),
        ("TASKER__TELEMETRY__OPENTELEMETRY__HEADERS", &*format!("authorization={HEADER}")),
    ];
    let secrets = [PASSWORD, HEADER, USERINFO, PARAMETER, secret(&known), secret(&unknown), token];
    let away = "127.0.0.1:1".to_owned();
    for (program, protocol, host) in [
        (ORCHESTRATION, "http/protobuf", &collector.to_string()),
        (ORCHESTRATION, "http/protobuf", &away),
        (WORKER, "grpc", &away),
    ] {
        let endpoint = format!("http://user:{USERINFO}@{host}/?api-key={PARAMETER}");
        let exported = [
            ("TASKER__TELEMETRY__OPENTELEMETRY__ENDPOINT", &*endpoint),
            ("TASKER__TELEMETRY__OPENTELEMETRY__PROTOCOL", protocol),
        ];
        let mut process = Process::service(program, url.as_str(), &[&settings[..], &exported].concat())?;
        let base = process.url().await?;
        for credential in [&known, &unknown, token] {
            let client = bearer(credential)?;
            for path in ["/metrics", "/v1/tasks", "/v1/keys", "/v1/audit", "/health/detailed"] {
                let text = client.get(format!("{base}{path}")).send().await?.text().await?;
                clean(path, &text, &secrets)?;
            }
            let create = json!({"name": format!("made {credential}"), "permissions": ["x"], "namespaces": ["*"]});
            client.post(format!("{base}/v1/keys")).json(&create).send().await?;
        }
        process.drain().await?;
        for told in ["sslpassword", "telemetry is not exported", "failed to fetch the issuer's keys"] {
            ensure!(process.text().contains(told), "`{told}` is logged:\n{}", process.text());
        }
        clean(program, &process.text(), &secrets)?;
    }
    sqlx::raw_sql(&format!("drop role {user}")).execute(&mut owner).await?;
    owner.close().await?;
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_shows_no_secret_of_the_configuration_or_of_its_own() -> Result<()> {
    let endpoint = format!("http://{USERINFO}@127.0.0.1:4318/?token={PARAMETER}");
    let jwks = format!("https://user:{USERINFO}@id.example.com/jwks?api-key={PARAMETER}");
    let service = format!("http://user:{USERINFO}@127.0.0.1:1/?token={PARAMETER}");
    let check = ["metrics", "check", &service];
    let given = ["health", "--url", &service];
    for arguments in [
        &["config", "show"] as &[_],
        &["config", "show", "--json"],
        &["config", "check"],
        &["health"],
        &given,
        &check,
        &["db", "status"],
    ] {
        let mut command = command(TASKER)?;
        command.args(arguments).env("XDG_CONFIG_HOME", "/nonexistent").env("TASKER_URL", &service);
        command.env("DATABASE_URL", format!("postgres://u:{PASSWORD}/x@127.0.0.1:1/x?PASSWORD={PARAMETER}"));
        command.env("TASKER__TELEMETRY__OPENTELEMETRY__HEADERS", format!("authorization={HEADER}"));
        command.env("TASKER__TELEMETRY__OPENTELEMETRY__ENDPOINT", &endpoint);
        command.env("TASKER__AUTH__JWT__JWKS_URL", &jwks).env("TASKER_TOKEN", "planted-token");
        let ran = command.output().await?;
        let text = format!("{}{}", String::from_utf8(ran.stdout)?, String::from_utf8(ran.stderr)?);
        clean(&arguments.join(" "), &text, &[PASSWORD, HEADER, USERINFO, PARAMETER, "planted-token"])?;
    }
    Ok(())
}

#[tokio::test]
async fn a_service_that_cannot_start_shows_no_secret() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let passwords = directory.path().join("pgpass");
    fs::write(&passwords, format!("127.0.0.1:1:x:{PASSWORD}\n"))?;
    fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600))?;
    let broken = directory.path().join("config");
    fs::create_dir_all(&broken)?;
    fs::write(
        broken.join("base.toml"),
        format!("database = \"postgres://u:{PASSWORD}@h/x\"\n[telemetry]\nopentelemetry = \"{HEADER}\"\n"),
    )?;
    let (passwords, broken) = (passwords.display().to_string(), broken.display().to_string());
    let url = |tail: &str| format!("postgres://u@127.0.0.1:1/x{tail}");
    let invalid = format!("postgres://u:{PASSWORD}/ss@127.0.0.1:1/x");
    let numeric = format!("postgres://127.0.0.1:1/{PASSWORD}@127.0.0.1:1/x");
    let unencoded = url(&format!("?sslmode=require;password={PASSWORD}"));
    let unknown = url(&format!("?sslpassword={PASSWORD}"));
    for (name, value, told) in [
        ("DATABASE_URL", &invalid, "the given URL"),
        ("DATABASE_URL", &numeric, "the given URL"),
        ("DATABASE_URL", &unencoded, "sslmode is none of"),
        ("DATABASE_URL", &unknown, "sslpassword"),
        ("PGPASSFILE", &passwords, "Connection refused"),
        ("TASKER_CONFIG_ROOT", &broken, "expected a section [database]"),
        ("OTEL_EXPORTER_OTLP_HEADERS", &HEADER.to_owned(), "OTEL_EXPORTER_OTLP_HEADERS is not understood"),
    ] {
        for program in [ORCHESTRATION, WORKER] {
            let mut command = command(program)?;
            command.env("DATABASE_URL", url("")).env("TASKER_ENV", "test").env("RUST_LOG", "debug").env(name, value);
            command.env("TASKER__DATABASE__STARTUP_TIMEOUT_MS", "300").stdout(Stdio::piped());
            command.env("TASKER__TELEMETRY__OPENTELEMETRY__ENABLED", "true");
            let ran = command.output().await?;
            let text = format!("{}{}", String::from_utf8(ran.stdout)?, String::from_utf8(ran.stderr)?);
            ensure!(ran.status.code() == Some(1) && text.contains(told), "{name}: {text}");
            clean(name, &text, &[PASSWORD, HEADER])?;
        }
    }
    Ok(())
}
