//! `tasker metrics …`: the catalogue, which is part of the program, and how running services keep to it.

use crate::{args::MetricsCommand, error::Result, exit::Exit, shell::Shell, view};
use serde_json::{Value, json};
use tasker_shared::{
    metrics::{CATALOG, Conformity, Spec},
    url::without_secrets,
};

pub(super) async fn run(command: MetricsCommand, shell: &mut Shell) -> Result {
    match command {
        MetricsCommand::List { name } => list(name.unwrap_or_default().as_str(), shell),
        MetricsCommand::Check { urls, strict } => check(urls, strict, shell).await,
    }
}

fn list(name: &str, shell: &mut Shell) -> Result {
    let has = |spec: &&Spec| spec.name.contains(name) || spec.prometheus_name().contains(name);
    let found: Vec<_> = CATALOG.iter().filter(has).collect();
    let objects: Vec<_> = found.iter().map(|spec| object(spec)).collect();
    shell.print(&json!({ "metrics": objects }), |look| view::metrics(&found, look))?;
    Ok(if found.is_empty() { Exit::NotFound } else { Exit::Ok })
}

async fn check(mut urls: Vec<String>, strict: bool, shell: &mut Shell) -> Result {
    let mut pages = Vec::new();
    if urls.is_empty() {
        let client = shell.client()?;
        urls.push(client.url().to_owned());
        pages.push(client.metrics().await?);
    } else {
        for url in &urls {
            let url = url.trim_end_matches('/');
            let client = shell.client_of(url.strip_suffix("/metrics").unwrap_or(url).to_owned())?;
            pages.push(client.metrics().await?);
        }
        urls = urls.iter().map(|url| without_secrets(url)).collect();
    }
    let found = Conformity::of(pages.iter().map(String::as_str));
    let holds = found.holds() && (found.silent.is_empty() || !strict);
    let object = json!({
        "urls": urls, "ok": holds, "declared": CATALOG.len(), "present": found.present, "missing": found.missing,
        "silent": found.silent, "unexpected": found.unexpected, "different": found.different, "own": found.own,
    });
    shell.print(&object, |look| view::conformity(&found, &urls, look))?;
    Ok(if holds { Exit::Ok } else { Exit::Failed })
}

fn object(spec: &Spec) -> Value {
    json!({
        "name": spec.name, "prometheus_name": spec.prometheus_name(), "kind": spec.kind.as_str(), "unit": spec.unit,
        "labels": spec.labels, "help": spec.help, "buckets": spec.buckets,
    })
}
