//! Rules between keys.

use super::{Config, Problem, Setting};
use crate::name::Name;
use std::net::{IpAddr, SocketAddr};

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
    let addresses = [
        ("orchestration.http_address", Some(orchestration.http_address)),
        ("orchestration.metrics_address", orchestration.metrics_address),
        ("worker.http_address", Some(worker.http_address)),
        ("worker.metrics_address", worker.metrics_address),
    ];
    for (key, address) in addresses.into_iter().filter_map(|(key, address)| Some((key, address?))) {
        rule(
            config.auth.enabled || config.auth.allow_unauthenticated_public_address || is_local(address),
            key,
            "a loopback address such as \"127.0.0.1:8080\" while authentication is off; to be reached from other machines, \
             set auth.enabled = true and make a key with `tasker key create`, or, where something else keeps strangers \
             away, set auth.allow_unauthenticated_public_address = true"
                .to_owned(),
        );
    }
    let jwt = &config.auth.jwt;
    rule(
        jwt.public_key.is_none() || jwt.jwks_url.is_none(),
        "auth.jwt.public_key",
        "nothing, because auth.jwt.jwks_url is set: keys come from one place".to_owned(),
    );
    for (key, value) in [("auth.jwt.issuer", &jwt.issuer), ("auth.jwt.audience", &jwt.audience)] {
        let expected = "what the tokens' claim must have, because auth.jwt is in use";
        rule(!jwt.is_configured() || !value.is_empty(), key, expected.to_owned());
    }
    rule(
        jwt.jwks_url.as_deref().is_none_or(is_private_way),
        "auth.jwt.jwks_url",
        "a URL that starts with https://, or http:// on this machine: who can change the keys can be anyone".to_owned(),
    );
    for (section, tls) in [("orchestration", &orchestration.tls), ("worker", &worker.tls)] {
        rule(
            tls.certificate.is_some() == tls.key.is_some(),
            &format!("{section}.tls.key"),
            format!("a file together with {section}.tls.certificate, or neither"),
        );
        rule(
            tls.client_authority.is_none() || tls.certificate.is_some(),
            &format!("{section}.tls.client_authority"),
            format!("nothing without {section}.tls.certificate"),
        );
    }
    problems
}

fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Whether nobody on the way can change what is fetched.
fn is_private_way(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return url.starts_with("https://") };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let host = host.map_or(authority, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn problem(setting: &Setting, expected: String) -> Problem {
    Problem::Value {
        key: setting.key.to_owned(),
        value: setting.value.clone(),
        origin: setting.origin.clone(),
        expected,
    }
}
