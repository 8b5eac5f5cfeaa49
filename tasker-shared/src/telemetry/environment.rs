//! What the settings and the standard `OTEL_*` variables together ask for. The variables win.

use super::{
    Error,
    sampler::Sampler,
    settings::{Compression, Protocol, Settings},
    tail::Rates,
};
use crate::{config::host_name, metrics::Signal, url::without_secrets};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use reqwest::Url;
use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

/// What is done.
#[derive(Debug)]
pub(super) struct Plan {
    /// Why nothing is measured, if nothing is.
    pub(super) disabled: Option<&'static str>,
    /// Why nothing is exported, if nothing is.
    pub(super) not_exported: Option<&'static str>,
    pub(super) resource: Resource,
    pub(super) sampler: Sampler,
    /// Which traces are kept late, if any are.
    pub(super) tail: Option<Rates>,
    pub(super) interval: Duration,
    pub(super) metrics: Option<Target>,
    pub(super) traces: Option<Target>,
    pub(super) logs: Option<Target>,
}

/// Where one signal goes.
#[derive(Clone, PartialEq)]
pub(super) struct Target {
    pub(super) signal: Signal,
    pub(super) endpoint: String,
    pub(super) protocol: Protocol,
    pub(super) headers: Vec<(String, String)>,
    pub(super) timeout: Duration,
    pub(super) compression: Compression,
    pub(super) certificate: Option<PathBuf>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Target")
            .field("signal", &self.signal)
            .field("endpoint", &without_secrets(&self.endpoint))
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

/// Reads variables.
pub(super) struct Environment<'a>(pub(super) &'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    /// A variable that is not empty, as the specification asks.
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn parsed<V: FromStr>(&self, name: &'static str, expected: &'static str) -> Result<Option<V>, Error> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match value.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(Error::Variable { name: name.to_owned(), value, expected }),
        }
    }

    fn flag(&self, name: &'static str) -> Result<Option<bool>, Error> {
        let lower = self.text(name).map(|value| value.to_ascii_lowercase());
        match lower.as_deref() {
            None => Ok(None),
            Some("true" | "1" | "yes" | "on") => Ok(Some(true)),
            Some("false" | "0" | "no" | "off") => Ok(Some(false)),
            Some(value) => {
                Err(Error::Variable { name: name.to_owned(), value: value.to_owned(), expected: "true or false" })
            }
        }
    }

    /// `OTEL_EXPORTER_OTLP_<SIGNAL>_<what>`, or the same for all signals.
    fn otlp(&self, signal: Signal, what: &str) -> Option<(String, String)> {
        let of_signal = format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.as_str().to_ascii_uppercase());
        let of_all = format!("OTEL_EXPORTER_OTLP_{what}");
        [of_signal, of_all].into_iter().find_map(|name| self.text(&name).map(|value| (name, value)))
    }

    fn otlp_parsed<V: FromStr>(&self, signal: Signal, what: &str, expected: &'static str) -> Result<Option<V>, Error> {
        let Some((name, value)) = self.otlp(signal, what) else { return Ok(None) };
        match value.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(Error::Variable { name, value, expected }),
        }
    }
}

/// Puts settings and environment together.
///
/// # Errors
/// A variable or a setting has a value that is not understood.
pub(super) fn plan(
    settings: &Settings,
    service: &str,
    version: &str,
    environment: &Environment<'_>,
) -> Result<Plan, Error> {
    let disabled = disabled(settings, environment)?;
    let endpoint_given = Signal::ALL.iter().any(|signal| environment.otlp(*signal, "ENDPOINT").is_some());
    let not_exported = match disabled {
        Some(reason) => Some(reason),
        None if settings.opentelemetry.enabled || endpoint_given => None,
        None => Some("telemetry.opentelemetry.enabled=false"),
    };
    let target = |signal| if not_exported.is_none() { target(settings, signal, environment) } else { Ok(None) };
    let interval = environment.parsed("OTEL_METRIC_EXPORT_INTERVAL", "a number of milliseconds")?;
    let sampler = sampler(settings, environment)?;
    let logs_wanted = settings.logs.otlp || environment.text("OTEL_LOGS_EXPORTER").as_deref() == Some("otlp");
    Ok(Plan {
        disabled,
        not_exported,
        resource: resource(settings, service, version, environment),
        sampler,
        tail: tail(settings, environment)?,
        interval: Duration::from_millis(interval.unwrap_or(settings.opentelemetry.export_interval_ms).max(1)),
        metrics: target(Signal::Metrics)?,
        traces: target(Signal::Traces)?,
        logs: if logs_wanted { target(Signal::Logs)? } else { None },
    })
}

fn disabled(settings: &Settings, environment: &Environment<'_>) -> Result<Option<&'static str>, Error> {
    if environment.flag("OTEL_SDK_DISABLED")? == Some(true) {
        return Ok(Some("OTEL_SDK_DISABLED=true"));
    }
    Ok(match environment.flag("TELEMETRY_ENABLED")? {
        Some(true) => None,
        Some(false) => Some("TELEMETRY_ENABLED=false"),
        None if settings.enabled => None,
        None => Some("telemetry.enabled=false"),
    })
}

fn target(settings: &Settings, signal: Signal, environment: &Environment<'_>) -> Result<Option<Target>, Error> {
    let exporter = match signal {
        Signal::Metrics => "OTEL_METRICS_EXPORTER",
        Signal::Traces => "OTEL_TRACES_EXPORTER",
        Signal::Logs => "OTEL_LOGS_EXPORTER",
    };
    match environment.text(exporter).as_deref() {
        None | Some("otlp") => {}
        Some("none" | "prometheus") => return Ok(None),
        Some(value) => {
            let expected = "otlp, prometheus or none";
            return Err(Error::Variable { name: exporter.to_owned(), value: value.to_owned(), expected });
        }
    }
    let otlp = &settings.opentelemetry;
    let protocol = environment.otlp_parsed(signal, "PROTOCOL", "grpc or http/protobuf")?.unwrap_or(otlp.protocol);
    let timeout = environment.otlp_parsed(signal, "TIMEOUT", "a number of milliseconds")?;
    let mut headers: Vec<_> = match environment.otlp(signal, "HEADERS") {
        Some((name, value)) => pairs(&value).ok_or(Error::Headers { name })?,
        None => otlp.headers.clone().into_iter().collect(),
    };
    let endpoint = endpoint(otlp.endpoint.as_deref(), protocol, signal, environment);
    Ok(Some(Target {
        signal,
        endpoint: without_credentials(endpoint, &mut headers),
        protocol,
        headers,
        timeout: Duration::from_millis(timeout.unwrap_or(otlp.timeout_ms)),
        compression: environment.otlp_parsed(signal, "COMPRESSION", "gzip or none")?.unwrap_or(otlp.compression),
        certificate: environment
            .otlp(signal, "CERTIFICATE")
            .map(|(_, path)| PathBuf::from(path))
            .or_else(|| otlp.certificate.clone()),
    }))
}

/// The name and password of an address become a header: not every client takes them out, and some log the host with them.
fn without_credentials(endpoint: String, headers: &mut Vec<(String, String)>) -> String {
    let Ok(mut url) = Url::parse(&endpoint) else { return endpoint };
    let credentials = format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default()));
    if credentials == ":" || url.set_username("").and_then(|()| url.set_password(None)).is_err() {
        return endpoint;
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
        headers.push(("authorization".to_owned(), format!("Basic {}", STANDARD.encode(credentials))));
    }
    url.into()
}

/// Over HTTP the signal has a path of its own, unless its own variable gives the whole address.
fn endpoint(configured: Option<&str>, protocol: Protocol, signal: Signal, environment: &Environment<'_>) -> String {
    let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.as_str().to_ascii_uppercase());
    if let Some(whole) = environment.text(&own) {
        return whole;
    }
    let default = match protocol {
        Protocol::Grpc => "http://localhost:4317",
        Protocol::HttpProtobuf => "http://localhost:4318",
    };
    let shared = environment.text("OTEL_EXPORTER_OTLP_ENDPOINT");
    let base = shared.as_deref().or(configured).unwrap_or(default);
    match protocol {
        Protocol::Grpc => base.to_owned(),
        Protocol::HttpProtobuf => format!("{}/v1/{signal}", base.trim_end_matches('/')),
    }
}

fn sampler(settings: &Settings, environment: &Environment<'_>) -> Result<Sampler, Error> {
    if !(0.0..=1.0).contains(&settings.sample_rate) {
        return Err(Error::SampleRate(settings.sample_rate));
    }
    let name = "OTEL_TRACES_SAMPLER";
    let Some(wanted) = environment.text(name) else { return Ok(Sampler::new(settings.sample_rate, true)) };
    let (kind, follows_caller) = match wanted.strip_prefix("parentbased_") {
        Some(kind) => (kind, true),
        None => (wanted.as_str(), false),
    };
    let ratio = match kind {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => environment.parsed("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1")?.unwrap_or(1.0),
        _ => {
            let expected = "always_on, always_off, traceidratio, or one of them after parentbased_";
            return Err(Error::Variable { name: name.to_owned(), value: wanted, expected });
        }
    };
    Ok(Sampler::new(ratio, follows_caller))
}

/// `always_off` means always.
fn tail(settings: &Settings, environment: &Environment<'_>) -> Result<Option<Rates>, Error> {
    let rates = [settings.failed_sample_rate, settings.slow_sample_rate];
    if let Some(rate) = rates.into_iter().find(|rate| !(0.0..=1.0).contains(rate)) {
        return Err(Error::SampleRate(rate));
    }
    let off = environment.text("OTEL_TRACES_SAMPLER").is_some_and(|sampler| sampler.ends_with("always_off"));
    let [failed, slow] = rates.map(|rate| Sampler::new(rate, false));
    let slow_after = Duration::from_millis(settings.slow_after_ms);
    Ok((!off && rates.iter().any(|rate| *rate > 0.0)).then_some(Rates { failed, slow, slow_after }))
}

fn resource(settings: &Settings, service: &str, version: &str, environment: &Environment<'_>) -> Resource {
    let given = environment.text("OTEL_RESOURCE_ATTRIBUTES").and_then(|text| pairs(&text)).unwrap_or_default();
    let of_attributes = given.iter().find(|(key, _)| key == "service.name").map(|(_, value)| value.clone());
    let name = environment.text("OTEL_SERVICE_NAME").or(of_attributes).or_else(|| settings.service_name.clone());
    let instance = crate::id::WorkerId::generate().to_string();
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.version", version.to_owned()),
            KeyValue::new("service.instance.id", instance),
            KeyValue::new("process.pid", i64::from(std::process::id())),
            KeyValue::new("telemetry.sdk.language", "rust"),
            KeyValue::new("telemetry.sdk.name", "opentelemetry"),
        ])
        .with_attributes(host_name().map(|name| KeyValue::new("host.name", name)))
        .with_attributes(program().map(|name| KeyValue::new("process.executable.name", name)))
        .with_attributes(given.into_iter().map(|(key, value)| KeyValue::new(key, value)))
        .with_service_name(name.unwrap_or_else(|| service.to_owned()))
        .build()
}

/// The file name of this program.
fn program() -> Option<String> {
    Some(std::env::current_exe().ok()?.file_name()?.to_string_lossy().into_owned())
}

/// `key=value` pairs, separated by commas, the values percent-encoded.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| entry.split_once('=').map(|(key, value)| (key.trim().to_owned(), decoded(value.trim()))))
        .collect()
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Environment, Plan, plan};
    use crate::telemetry::{
        Error,
        sampler::Sampler,
        settings::{Compression, Protocol, Settings},
    };
    use opentelemetry::Key;

    fn planned(settings: &Settings, variables: &[(&str, &str)]) -> Result<Plan, Error> {
        let read =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        plan(settings, "tasker-worker", "1.2.3", &Environment(&read))
    }

    fn exporting() -> Settings {
        let mut settings = Settings::default();
        settings.opentelemetry.enabled = true;
        settings
    }

    #[test]
    fn without_configuration_metrics_are_kept_and_nothing_is_exported() {
        let plan = planned(&Settings::default(), &[]).unwrap();
        assert_eq!((plan.disabled, plan.metrics), (None, None));
        assert_eq!(plan.not_exported, Some("telemetry.opentelemetry.enabled=false"));
    }

    #[test]
    fn the_export_goes_to_the_local_collector_by_default() {
        let target = planned(&exporting(), &[]).unwrap().traces.unwrap();
        assert_eq!((target.endpoint.as_str(), target.protocol), ("http://localhost:4317", Protocol::Grpc));
        let http = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
        let target = planned(&exporting(), &http).unwrap().traces.unwrap();
        assert_eq!(target.endpoint, "http://localhost:4318/v1/traces");
    }

    #[test]
    fn variables_win_and_those_of_a_signal_win_over_those_of_all() {
        let mut settings = exporting();
        settings.opentelemetry.endpoint = Some("http://configured:1".to_owned());
        let plan = planned(
            &settings,
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/"),
                ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://own:9/otlp"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, tenant=c"),
                ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
            ],
        )
        .unwrap();
        let (metrics, traces) = (plan.metrics.unwrap(), plan.traces.unwrap());
        assert_eq!(metrics.endpoint, "http://own:9/otlp");
        assert_eq!(traces.endpoint, "http://all:4318/v1/traces");
        assert_eq!(traces.headers, [("api-key".into(), "a b".into()), ("tenant".into(), "c".into())]);
        assert_eq!((traces.timeout.as_millis(), metrics.timeout.as_millis()), (250, 10_000));
        assert_eq!(traces.compression, Compression::Gzip);
        assert_eq!(plan.interval.as_millis(), 5_000);
    }

    #[test]
    fn an_endpoint_in_the_environment_turns_the_export_on() {
        let plan = planned(&Settings::default(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")]).unwrap();
        assert!(plan.metrics.is_some() && plan.logs.is_none());
    }

    #[test]
    fn everything_and_every_signal_can_be_turned_off() {
        for (name, value) in [("OTEL_SDK_DISABLED", "true"), ("TELEMETRY_ENABLED", "false")] {
            assert!(planned(&exporting(), &[(name, value)]).unwrap().disabled.is_some());
        }
        let plan = planned(&exporting(), &[("OTEL_METRICS_EXPORTER", "none")]).unwrap();
        assert!(plan.metrics.is_none() && plan.traces.is_some());
    }

    #[test]
    fn the_standard_samplers_are_understood() {
        let sampler = |name, ratio| {
            let variables = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", ratio)];
            planned(&Settings::default(), &variables).unwrap().sampler
        };
        assert_eq!(sampler("always_off", ""), Sampler::new(0.0, false));
        assert_eq!(sampler("parentbased_traceidratio", "0.25"), Sampler::new(0.25, true));
    }

    #[test]
    fn what_is_kept_late_is_configured_and_always_off_means_always() {
        let settings = Settings { failed_sample_rate: 1.0, sample_rate: 0.1, ..Settings::default() };
        let tail = |sampler| planned(&settings, &[("OTEL_TRACES_SAMPLER", sampler)]).unwrap().tail;
        assert!(tail("").is_some_and(|rates| rates.failed == Sampler::new(1.0, false)));
        assert!(tail("traceidratio").is_some());
        assert!(tail("parentbased_always_off").is_none());
        assert!(planned(&Settings::default(), &[]).unwrap().tail.is_none());
    }

    #[test]
    fn a_value_that_is_not_understood_is_named() {
        let wrong = planned(&exporting(), &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "OTEL_EXPORTER_OTLP_PROTOCOL is `http/json`; give grpc or http/protobuf, or unset it"
        );
    }

    #[test]
    fn the_name_and_password_of_an_address_are_sent_as_a_header() {
        let traces = |endpoint, headers| {
            let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_EXPORTER_OTLP_HEADERS", headers)];
            let target = planned(&exporting(), &variables).unwrap().traces.unwrap();
            (target.endpoint, target.headers)
        };
        let header = |value: &str| vec![("authorization".to_owned(), value.to_owned())];
        assert_eq!(traces("http://u:p%40ss@h:4317", ""), ("http://h:4317/".to_owned(), header("Basic dTpwQHNz")));
        assert_eq!(traces("http://u@h:4317", "authorization=own"), ("http://h:4317/".to_owned(), header("own")));
        assert_eq!(traces("http://h:4317", ""), ("http://h:4317".to_owned(), Vec::new()));
    }

    #[test]
    fn headers_are_never_shown() {
        for name in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"] {
            let told = planned(&exporting(), &[(name, "SECRETnoeq")]).unwrap_err().to_string();
            assert!(told.contains(name) && told.contains("key=value") && !told.contains("SECRET"), "{told}");
        }
        let variables = [
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=SECRET"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:SECRET@h/?token=SECRET"),
        ];
        let shown = format!("{:?}", planned(&exporting(), &variables).unwrap());
        assert!(shown.contains("authorization") && !shown.contains("SECRET"), "{shown}");
    }

    #[test]
    fn the_service_is_named_by_the_environment_first() {
        let mut settings = Settings { service_name: Some("configured".to_owned()), ..Settings::default() };
        let name = |settings: &Settings, variables: &[(&str, &str)]| {
            planned(settings, variables).unwrap().resource.get(&Key::new("service.name")).unwrap().to_string()
        };
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute,deployment.environment.name=test");
        assert_eq!(name(&settings, &[("OTEL_SERVICE_NAME", "named"), attributes]), "named");
        assert_eq!(name(&settings, &[attributes]), "attribute");
        assert_eq!(name(&settings, &[]), "configured");
        settings.service_name = None;
        assert_eq!(name(&settings, &[]), "tasker-worker");
    }

    #[test]
    fn the_resource_tells_machine_and_process_and_the_environment_may_say_otherwise() {
        let attribute = |name: &'static str, variables: &[(&str, &str)]| {
            let plan = planned(&Settings::default(), variables).unwrap();
            plan.resource.get(&Key::new(name)).map(|value| value.to_string()).unwrap_or_default()
        };
        assert_eq!(attribute("process.pid", &[]), std::process::id().to_string());
        assert!(!attribute("host.name", &[]).is_empty() && !attribute("process.executable.name", &[]).is_empty());
        let given = ("OTEL_RESOURCE_ATTRIBUTES", "host.name=node-7,service.instance.id=pod-3");
        assert_eq!(attribute("host.name", &[given]), "node-7");
        assert_eq!(attribute("service.instance.id", &[given]), "pod-3");
        assert_ne!(
            attribute("service.instance.id", &[]),
            attribute("service.instance.id", &[]),
            "each start has its own"
        );
    }
}
