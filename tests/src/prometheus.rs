//! Prometheus, as a test starts it, and as anybody asks it.

use crate::process::Process;
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::process::Command;

/// How long it may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks a Prometheus.
#[derive(Debug, Clone)]
pub struct Asker {
    http: reqwest::Client,
    query: reqwest::Url,
}

impl Asker {
    /// The one at this address.
    ///
    /// # Errors
    /// It is none.
    pub fn new(url: &str) -> Result<Self> {
        let query = reqwest::Url::parse(&format!("{}/api/v1/query", url.trim_end_matches('/')))?;
        Ok(Self { http: reqwest::Client::new(), query })
    }

    /// The one number that a query returns now, if it returns something.
    ///
    /// # Errors
    /// Prometheus does not answer, refuses, or has several.
    pub async fn number(&self, query: &str) -> Result<Option<f64>> {
        self.one(query, None).await
    }

    /// The same at a time since 1970.
    ///
    /// # Errors
    /// As for [`Asker::number`].
    pub async fn number_at(&self, query: &str, at: Duration) -> Result<Option<f64>> {
        self.one(query, Some(at)).await
    }

    async fn one(&self, query: &str, at: Option<Duration>) -> Result<Option<f64>> {
        match self.numbers(query, at).await?[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            ref values => bail!("{query} returns {} series", values.len()),
        }
    }

    /// The numbers of all series that a query returns.
    ///
    /// # Errors
    /// Prometheus does not answer, or refuses.
    pub async fn numbers(&self, query: &str, at: Option<Duration>) -> Result<Vec<f64>> {
        let mut url = self.query.clone();
        url.query_pairs_mut().append_pair("query", query);
        if let Some(at) = at {
            url.query_pairs_mut().append_pair("time", &format!("{:.3}", at.as_secs_f64()));
        }
        let answer: Value = self.http.get(url).send().await?.json().await?;
        ensure!(answer["status"] == "success", "{query}: {}", answer["error"]);
        let series = answer["data"]["result"].as_array().into_iter().flatten();
        Ok(series.filter_map(|series| series["value"][1].as_str()?.parse().ok()).collect())
    }
}

/// A Prometheus of our own, as long as this lives.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub url: String,
    /// Whether it receives OTLP; else it takes remote writes.
    pub takes_otlp: bool,
    process: Process,
    _dir: TempDir,
}

/// The program: what `TASKER_TEST_PROMETHEUS` names, else the distribution's; its help, if it is there.
async fn program() -> Option<(PathBuf, String)> {
    let program = std::env::var_os("TASKER_TEST_PROMETHEUS").map_or_else(|| PathBuf::from("prometheus"), PathBuf::from);
    let help = Command::new(&program).arg("--help").output().await.ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((program, text(&help.stdout) + &text(&help.stderr)))
}

impl Server {
    /// Starts it with a configuration; `None`, and a word about it, where it is not installed.
    ///
    /// # Errors
    /// It cannot be started, or does not listen in time.
    pub async fn start(mut config: Value) -> Result<Option<Self>> {
        let Some((program, help)) = program().await else {
            eprintln!("skipped: prometheus is not installed (Debian package `prometheus`)");
            return Ok(None);
        };
        let takes_otlp = help.contains("web.enable-otlp-receiver");
        // the zero of a new series is earlier than what was sent before
        config["storage"] = json!({ "tsdb": { "out_of_order_time_window": "10m" } });
        let dir = tempfile::tempdir()?;
        // no client can be made without a provider of TLS; another part may have chosen one
        let _ = rustls::crypto::ring::default_provider().install_default();
        // JSON is YAML
        fs::write(dir.path().join("prometheus.yaml"), config.to_string())?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(program);
        command.current_dir(dir.path()).kill_on_drop(true).args([
            "--config.file=prometheus.yaml",
            "--storage.tsdb.path=data",
            &format!("--web.listen-address=127.0.0.1:{port}"),
            if takes_otlp { "--web.enable-otlp-receiver" } else { "--web.enable-remote-write-receiver" },
        ]);
        let process = Process::start("prometheus", command)?;
        let server = Self { url: format!("http://127.0.0.1:{port}"), takes_otlp, process, _dir: dir };
        server.listens().await?;
        Ok(Some(server))
    }

    async fn listens(&self) -> Result<()> {
        let started = Instant::now();
        let ready = format!("{}/-/ready", self.url);
        while !reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()) {
            ensure!(started.elapsed() < PATIENCE, "it does not listen: {}", self.process.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Asks it.
    ///
    /// # Errors
    /// Never: it has an address.
    pub fn asker(&self) -> Result<Asker> {
        Asker::new(&self.url)
    }
}
