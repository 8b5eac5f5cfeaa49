//! `tasker metrics …`: the catalogue, which is part of the program.

use crate::{args::MetricsCommand, error::Result, exit::Exit, shell::Shell, view};
use serde_json::{Value, json};
use tasker_shared::metrics::{CATALOG, Spec};

pub(super) fn run(command: MetricsCommand, shell: &mut Shell) -> Result {
    match command {
        MetricsCommand::List { name } => list(name.unwrap_or_default().as_str(), shell),
    }
}

fn list(name: &str, shell: &mut Shell) -> Result {
    let has = |spec: &&Spec| spec.name.contains(name) || spec.prometheus_name().contains(name);
    let found: Vec<_> = CATALOG.iter().filter(has).collect();
    let objects: Vec<_> = found.iter().map(|spec| object(spec)).collect();
    shell.print(&json!({ "metrics": objects }), |look| view::metrics(&found, look))?;
    Ok(if found.is_empty() { Exit::NotFound } else { Exit::Ok })
}

fn object(spec: &Spec) -> Value {
    json!({
        "name": spec.name, "prometheus_name": spec.prometheus_name(), "kind": spec.kind.as_str(), "unit": spec.unit,
        "labels": spec.labels, "help": spec.help, "buckets": spec.buckets,
    })
}
