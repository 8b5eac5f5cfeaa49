//! Rules between keys.

use super::{Config, Problem, Setting};
use crate::name::Name;

/// The rules that a configuration breaks.
pub(super) fn broken(config: &Config) -> Vec<Problem> {
    let (orchestration, worker) = (&config.orchestration, &config.worker);
    let mut problems = Vec::new();
    let mut rule = |holds: bool, key: &str, expected: String| {
        if !holds {
            problems.extend(config.describe().iter().find(|setting| setting.key == key).map(|s| problem(s, expected)));
        }
    };
    rule(
        worker.heartbeat_interval * 2 < worker.lease,
        "worker.heartbeat_interval_ms",
        format!("less than half of worker.lease_ms ({})", worker.lease.as_millis()),
    );
    rule(
        orchestration.max_request_bytes >= orchestration.max_input_bytes,
        "orchestration.max_request_bytes",
        format!("at least orchestration.max_input_bytes ({})", orchestration.max_input_bytes),
    );
    rule(
        !worker.namespaces.is_empty(),
        "worker.namespaces",
        "at least one namespace, or \"*\" for every one".to_owned(),
    );
    let bad_name = worker.namespaces.iter().filter(|name| *name != "*").find_map(|name| Name::new(name).err());
    rule(bad_name.is_none(), "worker.namespaces", bad_name.map_or_else(String::new, |why| format!("names; {why}")));
    let breakers = &config.breakers;
    for (key, policy) in [
        ("breakers.database.longest_open_ms", breakers.database.policy()),
        ("breakers.http_handler.longest_open_ms", breakers.http_handler.policy()),
        ("breakers.ffi_completion.longest_open_ms", breakers.ffi_completion.policy()),
    ] {
        let expected = format!("at least {} ({})", key.replace("longest_", ""), policy.open.as_millis());
        rule(policy.longest_open >= policy.open, key, expected);
    }
    let (http, command) = (&worker.http, &worker.command);
    rule(
        !http.enabled || !http.allowed_hosts.is_empty(),
        "worker.http.enabled",
        "false, or hosts in worker.http.allowed_hosts (\"*\" for all)".to_owned(),
    );
    rule(
        !command.enabled || !command.allowed_programs.is_empty(),
        "worker.command.enabled",
        "false, or programs in worker.command.allowed_programs (\"*\" for all)".to_owned(),
    );
    problems
}

fn problem(setting: &Setting, expected: String) -> Problem {
    Problem::Value {
        key: setting.key.to_owned(),
        value: setting.value.clone(),
        origin: setting.origin.clone(),
        expected,
    }
}
