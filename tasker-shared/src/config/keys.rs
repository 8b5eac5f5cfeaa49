//! Every key there is, and which values it takes.

use super::{network::Network, retention};
use std::{collections::BTreeMap, net::SocketAddr};
use strsim::damerau_levenshtein;

/// A key of the configuration.
#[derive(Debug)]
pub(super) struct Key {
    /// The full name, such as `worker.http.enabled`.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// Which values a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A whole number in a range.
    Integer(i64, i64),
    /// A number in a range.
    Number(f64, f64),
    Flag,
    /// Any text.
    Text,
    /// A text of at least one character.
    Word,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// An address to listen on.
    Address,
    /// Nothing, or an address to listen on.
    OwnAddress,
    /// Nothing, or a URL that starts in one of these ways.
    Url(&'static [&'static str]),
    /// A list of texts that are not empty.
    List,
    /// A list of addresses and ranges of addresses.
    Networks,
    /// Names with texts.
    Pairs,
    /// A span of time such as `30d`, or `never`.
    Age,
}

/// A value that has the right form.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Integer(i64),
    Number(f64),
    Flag(bool),
    Text(String),
    List(Vec<String>),
    Pairs(BTreeMap<String, String>),
}

const COUNT: Kind = Kind::Integer(1, 1_000_000);
const BATCH: Kind = Kind::Integer(1, 10_000);
const INTERVAL: Kind = Kind::Integer(1, 3_600_000);
const BYTES: Kind = Kind::Integer(1024, 1 << 30);
const PER_SECOND: Kind = Kind::Number(0.0, 1_000_000.0);
const CONNECTIONS: Kind = Kind::Integer(1, 10_000);
const POSTGRES: Kind = Kind::Url(&["postgres://", "postgresql://"]);
const HTTP: Kind = Kind::Url(&["http://", "https://"]);

pub(super) const KEYS: &[Key] = &[
    key("database.url", POSTGRES),
    key("database.max_connections", CONNECTIONS),
    key("database.acquire_timeout_ms", INTERVAL),
    key("database.statement_timeout_ms", INTERVAL),
    key("database.connect_timeout_ms", INTERVAL),
    key("database.startup_timeout_ms", INTERVAL),
    key("auth.enabled", Kind::Flag),
    key("auth.allow_unauthenticated_public_address", Kind::Flag),
    key("auth.key_cache_ms", Kind::Integer(0, 3_600_000)),
    key("auth.jwt.public_key", Kind::Text),
    key("auth.jwt.jwks_url", HTTP),
    key("auth.jwt.jwks_refresh_ms", Kind::Integer(1000, 86_400_000)),
    key("auth.jwt.jwks_min_interval_ms", Kind::Integer(100, 3_600_000)),
    key("auth.jwt.issuer", Kind::Text),
    key("auth.jwt.audience", Kind::Text),
    key("auth.jwt.leeway_seconds", Kind::Integer(0, 600)),
    key("auth.jwt.permissions_claim", Kind::Word),
    key("auth.jwt.namespaces_claim", Kind::Word),
    key("orchestration.http_address", Kind::Address),
    key("orchestration.metrics_address", Kind::OwnAddress),
    key("orchestration.results_batch_size", BATCH),
    key("orchestration.requests_batch_size", BATCH),
    key("orchestration.process_loops", Kind::Integer(1, 64)),
    key("orchestration.poll_interval_ms", INTERVAL),
    key("orchestration.timer_poll_interval_ms", INTERVAL),
    key("orchestration.repair_interval_ms", INTERVAL),
    key("orchestration.stalled_after_ms", INTERVAL),
    key("orchestration.max_stalls", COUNT),
    key("orchestration.handler_missing_after_ms", Kind::Integer(0, 86_400_000)),
    key("orchestration.max_deliveries", COUNT),
    key("orchestration.shutdown_grace_ms", INTERVAL),
    key("orchestration.max_input_bytes", BYTES),
    key("orchestration.max_request_bytes", BYTES),
    key("orchestration.max_batch_submit", BATCH),
    key("orchestration.request_timeout_ms", INTERVAL),
    key("orchestration.tls.certificate", Kind::Text),
    key("orchestration.tls.key", Kind::Text),
    key("orchestration.tls.client_authority", Kind::Text),
    key("orchestration.max_concurrent_requests", COUNT),
    key("orchestration.max_waiting_requests", COUNT),
    key("orchestration.max_http_connections", Kind::Integer(0, 1_000_000)),
    key("orchestration.body_timeout_ms", INTERVAL),
    key("orchestration.rate_limits.address_per_second", PER_SECOND),
    key("orchestration.rate_limits.address_burst", COUNT),
    key("orchestration.rate_limits.submit_per_second", PER_SECOND),
    key("orchestration.rate_limits.submit_burst", COUNT),
    key("orchestration.rate_limits.read_per_second", PER_SECOND),
    key("orchestration.rate_limits.read_burst", COUNT),
    key("orchestration.rate_limits.operate_per_second", PER_SECOND),
    key("orchestration.rate_limits.operate_burst", COUNT),
    key("orchestration.rate_limits.max_clients", COUNT),
    key("worker.name", Kind::Text),
    key("worker.namespaces", Kind::List),
    key("worker.http_address", Kind::Address),
    key("worker.metrics_address", Kind::OwnAddress),
    key("worker.max_http_connections", Kind::Integer(0, 1_000_000)),
    key("worker.max_concurrent_steps", Kind::Integer(1, 100_000)),
    key("worker.claim_batch_size", BATCH),
    key("worker.report_batch_size", BATCH),
    key("worker.poll_interval_ms", INTERVAL),
    key("worker.lease_ms", Kind::Integer(100, 86_400_000)),
    key("worker.heartbeat_interval_ms", INTERVAL),
    key("worker.shutdown_grace_ms", INTERVAL),
    key("worker.max_result_bytes", BYTES),
    key("worker.max_deliveries", COUNT),
    key("worker.claim_below_percent", Kind::Integer(1, 100)),
    key("worker.max_memory_bytes", Kind::Integer(0, 1 << 50)),
    key("worker.http.enabled", Kind::Flag),
    key("worker.http.allowed_hosts", Kind::List),
    key("worker.http.max_response_bytes", BYTES),
    key("worker.http.timeout_ms", INTERVAL),
    key("worker.command.enabled", Kind::Flag),
    key("worker.command.allowed_programs", Kind::List),
    key("worker.command.allowed_environment", Kind::List),
    key("worker.command.allowed_step_environment", Kind::List),
    key("worker.command.max_output_bytes", BYTES),
    key("worker.command.kill_grace_ms", INTERVAL),
    key("worker.tls.certificate", Kind::Text),
    key("worker.tls.key", Kind::Text),
    key("worker.tls.client_authority", Kind::Text),
    key("breakers.database.failures", COUNT),
    key("breakers.database.window_ms", INTERVAL),
    key("breakers.database.open_ms", INTERVAL),
    key("breakers.database.longest_open_ms", INTERVAL),
    key("breakers.http_handler.failures", COUNT),
    key("breakers.http_handler.window_ms", INTERVAL),
    key("breakers.http_handler.open_ms", INTERVAL),
    key("breakers.http_handler.longest_open_ms", INTERVAL),
    key("breakers.http_handler.max_hosts", COUNT),
    key("breakers.ffi_completion.failures", COUNT),
    key("breakers.ffi_completion.window_ms", INTERVAL),
    key("breakers.ffi_completion.open_ms", INTERVAL),
    key("breakers.ffi_completion.longest_open_ms", INTERVAL),
    key("breakers.ffi_completion.slow_send_ms", INTERVAL),
    key("retention.complete_after", Kind::Age),
    key("retention.failed_after", Kind::Age),
    key("retention.identity_after", Kind::Age),
    key("retention.archive", Kind::Flag),
    key("retention.archived_after", Kind::Age),
    key("retention.dead_letters_after", Kind::Age),
    key("retention.queue_archives_after", Kind::Age),
    key("retention.workers_after", Kind::Age),
    key("retention.audit_after", Kind::Age),
    key("retention.sweep_interval_ms", INTERVAL),
    key("retention.batch_size", BATCH),
    key("telemetry.enabled", Kind::Flag),
    key("telemetry.service_name", Kind::Text),
    key("telemetry.sample_rate", Kind::Number(0.0, 1.0)),
    key("telemetry.failed_sample_rate", Kind::Number(0.0, 1.0)),
    key("telemetry.slow_sample_rate", Kind::Number(0.0, 1.0)),
    key("telemetry.slow_after_ms", Kind::Integer(1, 86_400_000)),
    key("telemetry.grafana_url", HTTP),
    key("telemetry.opentelemetry.enabled", Kind::Flag),
    key("telemetry.opentelemetry.endpoint", HTTP),
    key("telemetry.opentelemetry.protocol", Kind::Choice(&["grpc", "http/protobuf"])),
    key("telemetry.opentelemetry.headers", Kind::Pairs),
    key("telemetry.opentelemetry.timeout_ms", INTERVAL),
    key("telemetry.opentelemetry.compression", Kind::Choice(&["none", "gzip"])),
    key("telemetry.opentelemetry.certificate", Kind::Text),
    key("telemetry.opentelemetry.export_interval_ms", INTERVAL),
    key("telemetry.opentelemetry.batch_delay_ms", INTERVAL),
    key("telemetry.metrics.correlation", Kind::Choice(&["label", "off"])),
    key("telemetry.metrics.max_correlation_ids", COUNT),
    key("telemetry.metrics.idle_seconds", Kind::Integer(1, 86_400)),
    key("telemetry.metrics.probe_interval_ms", Kind::Integer(100, 3_600_000)),
    key("telemetry.metrics.allowed_clients", Kind::Networks),
    key("telemetry.logs.format", Kind::Choice(&["text", "json"])),
    key("telemetry.logs.level", Kind::Word),
    key("telemetry.logs.otlp", Kind::Flag),
];

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind }
}

/// Looks a key up by its full name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

impl Key {
    /// Whether the value may hold a secret.
    pub(super) fn is_secret(&self) -> bool {
        self.name == "database.url" || matches!(self.kind, Kind::Pairs)
    }

    /// Whether the value is a URL, which may have a password in it.
    pub(super) fn is_url(&self) -> bool {
        matches!(self.kind, Kind::Url(_))
    }
}

/// Whether there are keys below `name`.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The key that was probably meant: with a unit, in another section, or spelled a little differently.
pub(super) fn nearest_key(name: &str) -> Option<String> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let (written, whole) = (last(name), |key: &Key| damerau_levenshtein(name, key.name));
    let distance = |key: &Key| {
        if key.name.strip_prefix(name).is_some_and(|unit| unit.starts_with('_')) {
            return 0;
        }
        // The word itself says more than the section it was put into.
        whole(key).min(damerau_levenshtein(&written, &last(key.name)) + 1)
    };
    let nearest = KEYS.iter().min_by_key(|key| (distance(key), whole(key)))?;
    (distance(nearest) <= 2 + written.len() / 8).then(|| nearest.name.to_owned())
}

/// The section that was probably meant.
pub(super) fn nearest_section(name: &str) -> Option<String> {
    let sections = KEYS.iter().filter_map(|key| Some(key.name.rsplit_once('.')?.0));
    let nearest = sections.min_by_key(|section| damerau_levenshtein(name, section))?;
    (damerau_levenshtein(name, nearest) <= 2 + name.len() / 8).then(|| format!("[{nearest}]"))
}

impl Kind {
    /// Reads a value of an environment variable.
    pub(super) fn read(self, text: &str) -> Result<Value, String> {
        let value = match self {
            Self::Integer(..) => text.trim().parse().map(Value::Integer).ok(),
            Self::Number(..) => text.trim().parse().map(Value::Number).ok(),
            Self::Flag => text.trim().parse().map(Value::Flag).ok(),
            Self::List | Self::Networks if text.trim().is_empty() => Some(Value::List(Vec::new())),
            Self::List | Self::Networks => {
                Some(Value::List(text.split(',').map(|item| item.trim().to_owned()).collect()))
            }
            Self::Pairs => pairs(text).map(Value::Pairs),
            _ => Some(Value::Text(text.to_owned())),
        };
        value.filter(|value| self.accepts(value)).ok_or_else(|| self.expected())
    }

    /// Takes a value of a file.
    pub(super) fn take(self, value: &toml::Value) -> Result<Value, String> {
        let taken = match (self, value) {
            (Self::Integer(..), toml::Value::Integer(number)) => Some(Value::Integer(*number)),
            (Self::Number(..), toml::Value::Float(number)) => Some(Value::Number(*number)),
            #[expect(clippy::cast_precision_loss, reason = "ranges of numbers are far below 2^52")]
            (Self::Number(..), toml::Value::Integer(number)) => Some(Value::Number(*number as f64)),
            (Self::Flag, toml::Value::Boolean(flag)) => Some(Value::Flag(*flag)),
            (Self::List | Self::Networks, toml::Value::Array(items)) => {
                let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
                texts.collect::<Option<Vec<String>>>().map(Value::List)
            }
            (Self::Pairs, toml::Value::Table(table)) => {
                let texts = table.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
                texts.collect::<Option<BTreeMap<_, _>>>().map(Value::Pairs)
            }
            (Self::Integer(..) | Self::Number(..) | Self::Flag | Self::List | Self::Networks | Self::Pairs, _) => None,
            (_, toml::Value::String(text)) => Some(Value::Text(text.clone())),
            _ => None,
        };
        taken.filter(|value| self.accepts(value)).ok_or_else(|| self.expected())
    }

    fn accepts(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Integer(least, most), Value::Integer(number)) => (least..=most).contains(number),
            (Self::Number(least, most), Value::Number(number)) => (least..=most).contains(number),
            (Self::Word, Value::Text(text)) => !text.trim().is_empty(),
            (Self::Choice(words), Value::Text(text)) => words.contains(&text.as_str()),
            (Self::OwnAddress, Value::Text(text)) if text.is_empty() => true,
            (Self::Address | Self::OwnAddress, Value::Text(text)) => text.parse::<SocketAddr>().is_ok(),
            (Self::Url(starts), Value::Text(text)) => {
                let names_host = |start: &&str| text.strip_prefix(start).is_some_and(|rest| !rest.is_empty());
                text.is_empty() || starts.iter().any(names_host)
            }
            (Self::Networks, Value::List(items)) => items.iter().all(|item| item.parse::<Network>().is_ok()),
            (Self::Age, Value::Text(text)) => retention::age(text).is_ok(),
            (Self::List, Value::List(items)) => items.iter().all(|item| !item.trim().is_empty()),
            _ => true,
        }
    }

    /// What the key takes, in words.
    fn expected(self) -> String {
        match self {
            Self::Integer(least, most) => format!("a whole number from {least} to {most}"),
            Self::Number(least, most) => format!("a number from {least:?} to {most:?}"),
            Self::Flag => "true or false".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Word => "a text that is not empty".to_owned(),
            Self::Choice(words) => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "),
            Self::Address => "an address with a port, such as \"127.0.0.1:8080\"".to_owned(),
            Self::OwnAddress => "nothing, or an address with a port, such as \"127.0.0.1:9464\"".to_owned(),
            Self::Networks => "addresses and ranges, such as [\"127.0.0.1\", \"10.0.0.0/8\"]".to_owned(),
            Self::Url(starts) => format!("a URL that starts with {}", starts.join(" or ")),
            Self::List => "a list of texts, such as [\"a\", \"b\"] in a file or a,b in a variable".to_owned(),
            Self::Age => format!("a span of time such as \"30d\", or \"{}\"", retention::NEVER),
            Self::Pairs => "names with texts, such as { a = \"x\" } in a file or a=x,b=y in a variable".to_owned(),
        }
    }
}

fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))).collect()
}
