//! The system: its workers and its health.

use super::{Cell, Look, Table, Tone};
use chrono::TimeDelta;
use tasker_shared::{
    api::{Health, WorkerList},
    breaker::State,
};

/// The workers as a table.
pub fn workers(list: &WorkerList, look: &Look) -> String {
    if list.workers.is_empty() {
        return "no workers; start one with `tasker-worker`, or everything with `tasker dev`".to_owned();
    }
    let mut table = Table::new(
        look,
        ["WORKER", "STATE", "NAMESPACES", "HANDLERS", "RUNNING", "HEARTBEAT", "STARTED", "VERSION"],
        &["NAMESPACES", "HANDLERS"],
    );
    for worker in &list.workers {
        let (tone, state) = if worker.live { (Tone::Good, "live") } else { (Tone::Bad, "gone") };
        table.row([
            Cell::toned(Tone::Strong, worker.name.as_str()),
            Cell::toned(tone, state),
            worker.namespaces.join(" ").into(),
            some(&worker.handlers).into(),
            worker.running.to_string().into(),
            look.clock.relative(worker.heartbeat_at).into(),
            look.clock.moment(worker.started_at).into(),
            worker.version.as_str().into(),
        ]);
    }
    table.draw()
}

fn some(handlers: &[String]) -> String {
    const SHOWN: usize = 4;
    let more = handlers.len().saturating_sub(SHOWN);
    let shown = handlers.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(" ");
    if more == 0 { shown } else { format!("{shown} … {more} more") }
}

/// The health with its single checks.
pub fn health(health: &Health, url: &str, look: &Look) -> String {
    let tone = if health.status == "healthy" { Tone::Good } else { Tone::Bad };
    let status = look.paint.paint(tone, &super::one_line(&health.status));
    let head = format!("{status}  {} {} at {url}", health.service, health.version);
    if health.checks.is_empty() {
        return head;
    }
    let mut table = Table::new(look, ["", "CHECK", "FOUND", "TIME"], &["FOUND"]);
    for check in &health.checks {
        let (tone, symbol) = if check.healthy { (Tone::Good, "✓") } else { (Tone::Bad, "✗") };
        let time = TimeDelta::microseconds(i64::try_from(check.duration_us).unwrap_or(i64::MAX));
        table.row([
            Cell::toned(tone, symbol),
            check.component.as_str().into(),
            check.message.as_str().into(),
            Cell::toned(Tone::Quiet, super::duration(time)),
        ]);
    }
    let more = if health.breakers.is_empty() { String::new() } else { format!("\n\n{}", breakers(health, look)) };
    format!("{head}\n\n{}{more}", table.draw())
}

fn breakers(health: &Health, look: &Look) -> String {
    let mut table = Table::new(look, ["", "BREAKER", "STATE"], &[]);
    for breaker in &health.breakers {
        let (tone, symbol) = match breaker.state {
            State::Closed => (Tone::Good, "✓"),
            State::HalfOpen | State::Open => (Tone::Bad, "✗"),
        };
        let host = breaker.host.as_ref().map(|host| format!(" {}", super::one_line(host))).unwrap_or_default();
        let name = format!("{}{host}", super::one_line(&breaker.component));
        table.row([Cell::toned(tone, symbol), name.as_str().into(), breaker.state.as_str().into()]);
    }
    table.draw()
}
