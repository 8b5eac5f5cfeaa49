//! An independent reading: the official Python packages decode what is sent.

use super::rig::{FLUSH, settings};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};
use tasker_shared::telemetry::{Telemetry, settings::Protocol};
use tasker_tests::{
    System,
    system::{orchestration_settings, worker_settings},
    templates::{NAMESPACE, dag},
};
use tasker_worker::{HandlerError, StepContext, Worker, handler::handler_fn};

async fn echo(context: StepContext) -> Result<Value, HandlerError> {
    Ok(json!({ "step": context.step_name }))
}

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
async fn the_official_python_packages_read_the_same_over_grpc_and_http() -> Result<()> {
    for (protocol, port) in [(Protocol::Grpc, "grpc"), (Protocol::HttpProtobuf, "http")] {
        let Some(mut python) = Python::start()? else { return Ok(()) };
        let ports = python.line()?;
        let endpoint = format!("http://127.0.0.1:{}", ports[port]);
        let telemetry = Telemetry::start(&settings(endpoint, protocol), "tasker-tests", "0", &|_| None)?;
        let (metrics, tracing) = (telemetry.metrics().clone(), telemetry.tracing().clone());
        let mut system = System::start_traced(orchestration_settings(), metrics, tracing).await?;
        system.add_worker(Worker::builder().settings(worker_settings()).register("echo", handler_fn(echo)))?;
        system.apply(&dag("pair", "echo", &[("a", &[]), ("b", &["a"])])).await?;
        let submitted = system.submit(NAMESPACE, "pair", json!({})).await?;
        system.ended(submitted.task_id).await?;
        system.finish().await?;
        telemetry.shutdown(FLUSH).await;
        let sum = python.sum()?;
        assert_eq!(sum["via"], json!([port]), "{sum}");
        assert_eq!(sum["unknown_bytes"], 0, "the official schema knows every field that is sent");
        assert_eq!(sum["service"], json!(["tasker-tests"]));
        let of_task = &sum["counters"][submitted.correlation_id.to_string()];
        for (name, count) in [("tasker.tasks.requests.total", 1), ("tasker.steps.executions.total", 2)] {
            assert_eq!(of_task[name], count, "{name} over {port}: {of_task}");
        }
        let trace = submitted.correlation_id.to_string().replace('-', "");
        let spans = sum["spans"][&trace].as_array().map(Vec::len);
        // submit, initialize, finalize, and for each step enqueue, queue_wait, claim, execute, report and process
        assert_eq!(spans, Some(3 + 2 * 6), "{}", sum["spans"]);
    }
    Ok(())
}
