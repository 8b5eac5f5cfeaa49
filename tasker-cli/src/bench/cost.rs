//! What telemetry costs: the same load with telemetry off and with everything on, in turns, each in a process and a
//! PostgreSQL of its own.
//!
//! The collector is one that takes everything and looks at nothing: what a real one does with it is done on another
//! machine.

use super::load::broken;
use crate::{args::BenchArgs, error::Result, exit::Exit, shell::Shell};
use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, header::CONTENT_TYPE},
};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{net::TcpListener, process::Command};

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    /// One run without telemetry and one with it, each.
    pairs: Vec<Pair>,
    /// The part of the throughput that is lost, in percent: the median over the pairs.
    lost_percent: f64,
}

/// Two runs after each other.
#[derive(Debug, Serialize)]
struct Pair {
    /// Steps each second with telemetry off.
    off_steps_per_second: f64,
    /// Steps each second with metrics, and the traces of all tasks, exported.
    on_steps_per_second: f64,
    /// What the collector received, in bytes.
    exported_bytes: u64,
}

impl Pair {
    fn lost_percent(&self) -> f64 {
        100.0 * (1.0 - self.on_steps_per_second / self.off_steps_per_second)
    }
}

/// The part of a run's own report that is needed here.
#[derive(Debug, Deserialize)]
struct Run {
    steps_per_second: f64,
}

/// Measures so many pairs; every other one begins with telemetry on, so that a drift of the machine evens out.
///
/// # Errors
/// A run does not end well, or could not export everything.
pub(super) async fn run(args: &BenchArgs, pairs: u16, shell: &mut Shell) -> Result {
    let received = Arc::new(AtomicU64::new(0));
    let endpoint = collector(Arc::clone(&received)).await?;
    let mut measured = Vec::new();
    for pair in 0..pairs {
        shell.remark(&format!("pair {} of {pairs}", pair + 1))?;
        let before = received.load(Ordering::Relaxed);
        let (off, on) = if pair % 2 == 0 {
            let off = load(args, None).await?;
            (off, load(args, Some(&endpoint)).await?)
        } else {
            let on = load(args, Some(&endpoint)).await?;
            (load(args, None).await?, on)
        };
        let exported_bytes = received.load(Ordering::Relaxed) - before;
        measured.push(Pair { off_steps_per_second: off, on_steps_per_second: on, exported_bytes });
    }
    let mut lost: Vec<f64> = measured.iter().map(Pair::lost_percent).collect();
    lost.sort_by(f64::total_cmp);
    let middle = lost.get(lost.len() / 2).copied().unwrap_or_default();
    let report = Report { pairs: measured, lost_percent: (middle * 100.0).round() / 100.0 };
    shell.print(&report, |_| text(&report))?;
    Ok(Exit::Ok)
}

/// The load of `tasker bench` in a process of its own; answers with steps per second.
async fn load(args: &BenchArgs, endpoint: Option<&str>) -> Result<f64> {
    let mut command = Command::new(std::env::current_exe().map_err(broken)?);
    command
        .args(["bench", "--no-floor", "--samples", "1", "--json", "--duration"])
        .arg(format!("{}ms", args.duration.as_millis()))
        .arg("--steps")
        .arg(args.steps.to_string())
        .arg("--open")
        .arg(args.open.to_string())
        .stdin(Stdio::null());
    match endpoint {
        None => command.env("TELEMETRY_ENABLED", "false"),
        Some(endpoint) => command
            .env("TELEMETRY_ENABLED", "true")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env("OTEL_TRACES_SAMPLER", "always_on"),
    };
    let output = command.output().await.map_err(broken)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(broken(format!("a run ended with {}: {said}", output.status)));
    }
    if said.contains("telemetry is not exported") && endpoint.is_some() {
        return Err(broken(format!("not everything was exported, so the run counts for nothing: {said}")));
    }
    let run: Run = serde_json::from_slice(&output.stdout).map_err(broken)?;
    Ok(run.steps_per_second)
}

/// Takes OTLP over gRPC and HTTP; answers with its endpoint.
async fn collector(received: Arc<AtomicU64>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(broken)?;
    let endpoint = format!("http://{}", listener.local_addr().map_err(broken)?);
    let router = Router::new().fallback(move |request| take(request, Arc::clone(&received)));
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(endpoint)
}

async fn take(request: Request<Body>, received: Arc<AtomicU64>) -> Response<Body> {
    let mut body = request.into_body().into_data_stream();
    while let Some(Ok(part)) = body.next().await {
        received.fetch_add(part.len() as u64, Ordering::Relaxed);
    }
    // one empty message, and the status that gRPC expects
    let mut response = Response::new(Body::from(vec![0; 5]));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response.headers_mut().insert("grpc-status", HeaderValue::from_static("0"));
    response
}

fn text(report: &Report) -> String {
    let line = |pair: &Pair| {
        format!(
            "off {:>6.0} steps/s   on {:>6.0} steps/s   lost {:>5.1} %   exported {:.0} MB\n",
            pair.off_steps_per_second,
            pair.on_steps_per_second,
            pair.lost_percent(),
            pair.exported_bytes as f64 / 1e6,
        )
    };
    let lines: String = report.pairs.iter().map(line).collect();
    format!("{lines}median lost {:.1} %\n", report.lost_percent)
}
