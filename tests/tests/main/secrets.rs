//! What is secret stays so: planted secrets are in no log, no answer and no display.

use crate::access::{bearer, key};
use anyhow::{Result, ensure};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tasker_tests::{
    TestDatabase,
    process::{ORCHESTRATION, Process, TASKER, WORKER, command},
};

const PASSWORD: &str = "planted-password";
const HEADER: &str = "planted-header";
const USERINFO: &str = "planted-userinfo";

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
    let endpoint = format!("http://user:{USERINFO}@127.0.0.1:1");
    let settings = [
        ("RUST_LOG", "trace"),
        ("TASKER__AUTH__ENABLED", "true"),
        ("TASKER__TELEMETRY__OPENTELEMETRY__ENABLED", "true"),
        ("TASKER__TELEMETRY__OPENTELEMETRY__ENDPOINT", &*endpoint),
        ("TASKER__TELEMETRY__OPENTELEMETRY__PROTOCOL", "http/protobuf"),
        ("TASKER__TELEMETRY__OPENTELEMETRY__EXPORT_INTERVAL_MS", "100"),
        ("TASKER__TELEMETRY__OPENTELEMETRY__HEADERS", &*format!("authorization={HEADER}")),
    ];
    let secrets = [PASSWORD, HEADER, USERINFO, secret(&known), secret(&unknown), token];
    for program in [ORCHESTRATION, WORKER] {
        let mut process = Process::service(program, url.as_str(), &settings)?;
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
        ensure!(process.text().len() > 1_000, "it logs");
        clean(program, &process.text(), &secrets)?;
    }
    sqlx::raw_sql(&format!("drop role {user}")).execute(&mut owner).await?;
    owner.close().await?;
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_shows_no_secret_of_the_configuration_or_of_its_own() -> Result<()> {
    let endpoint = format!("http://user:{USERINFO}@127.0.0.1:4318");
    let jwks = format!("https://user:{USERINFO}@id.example.com/jwks");
    for arguments in [&["config", "show"] as &[_], &["config", "show", "--json"], &["config", "check"], &["health"]] {
        let mut command = command(TASKER)?;
        command.args(arguments).env("XDG_CONFIG_HOME", "/nonexistent").env("TASKER_URL", "http://127.0.0.1:1");
        command.env("DATABASE_URL", format!("postgres://u:{PASSWORD}@127.0.0.1:1/x"));
        command.env("TASKER__TELEMETRY__OPENTELEMETRY__HEADERS", format!("authorization={HEADER}"));
        command.env("TASKER__TELEMETRY__OPENTELEMETRY__ENDPOINT", &endpoint);
        command.env("TASKER__AUTH__JWT__JWKS_URL", &jwks).env("TASKER_TOKEN", "planted-token");
        let ran = command.output().await?;
        let text = format!("{}{}", String::from_utf8(ran.stdout)?, String::from_utf8(ran.stderr)?);
        clean(&arguments.join(" "), &text, &[PASSWORD, HEADER, USERINFO, "planted-token"])?;
    }
    Ok(())
}
