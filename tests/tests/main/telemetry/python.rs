//! An independent reading: the official Python packages decode what is sent.

use crate::stage::Stage;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};
/// `otlp_receiver.py`; it ends when its standard input does.
struct Python(Child, BufReader<std::process::ChildStdout>);

impl Python {
    /// `None` where the packages are not installed.
    fn start() -> Result<Option<Self>> {
        let python = std::env::var("TASKER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let imports = "import grpc, opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc";
        let has = Command::new(&python).args(["-c", imports]).stderr(Stdio::null()).status();
        if !has.is_ok_and(|status| status.success()) {
            println!(
                "skipped: {python} lacks grpcio or opentelemetry-proto; install them and name it in TASKER_TEST_PYTHON"
            );
            return Ok(None);
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("otlp_receiver.py");
        let mut child =
            Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("python")?;
        let out = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Some(Self(child, out)))
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.1.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("`{line}`"))
    }

    /// Lets it sum up what it received.
    fn sum(mut self) -> Result<Value> {
        drop(self.0.stdin.take());
        let sum = self.line()?;
        self.0.wait()?;
        Ok(sum)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_python_packages_read_all_signals_of_both_services_over_grpc_and_http() -> Result<()> {
    for (protocol, port) in [("grpc", "grpc"), ("http/protobuf", "http")] {
        let Some(mut python) = Python::start()? else { return Ok(()) };
        let ports = python.line()?;
        let endpoint = format!("http://127.0.0.1:{}", ports[port]);
        let settings = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
            ("TASKER__TELEMETRY__LOGS__OTLP", "true"),
            ("TASKER__WORKER__COMMAND__ENABLED", "true"),
            ("TASKER__WORKER__COMMAND__ALLOWED_PROGRAMS", "*"),
        ];
        let named = |name| [&settings[..], &[("OTEL_SERVICE_NAME", name)]].concat();
        let stage = Stage::start_with(&named("tasker-orchestration")).await?;
        let mut worker = stage.worker(&named("tasker-worker"))?;
        let task = stage.submit("chain", json!({})).await?;
        let id = stage.ended(task).await?.summary.correlation_id.to_string();
        worker.drain().await?;
        stage.finish().await?;
        let sum = python.sum()?;
        assert_eq!(sum["via"], json!([port]), "{sum}");
        assert_eq!(sum["unknown_bytes"], 0, "the official schema knows every field that is sent");
        for service in ["tasker-orchestration", "tasker-worker"] {
            assert_eq!(sum["services"][service], json!(["logs", "metrics", "traces"]), "{service} over {port}");
        }
        for (name, count) in [
            ("tasker.tasks.requests.total", 1),
            ("tasker.steps.enqueued.total", 4),
            ("tasker.steps.executions.total", 4),
            ("tasker.steps.successes.total", 4),
            ("tasker.steps.results_submitted.total", 4),
            ("tasker.step_results.processed.total", 4),
            ("tasker.tasks.completions.total", 1),
        ] {
            assert_eq!(sum["counters"][&id][name], count, "{name} over {port}: {}", sum["counters"][&id]);
        }
        let spans = sum["spans"][id.replace('-', "")].as_array().context("its spans")?;
        for (station, count) in [("submit", 1), ("initialize", 1), ("claim", 4), ("execute", 4), ("finalize", 1)] {
            let found = spans.iter().filter(|span| **span == station).count();
            assert_eq!(found, count, "{station} over {port}: {spans:?}");
        }
    }
    Ok(())
}
