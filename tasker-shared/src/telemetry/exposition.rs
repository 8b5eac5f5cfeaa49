//! The page for a scrape: Prometheus text or OpenMetrics, without correlation ids.
//!
//! What is declared and has not been measured yet is there by its name alone, so that a reader can tell it from what this
//! program does not know. Exemplars, which OpenMetrics has room for, lead from a bucket to the trace of a task that fell into it.

use super::store::{Exemplar, Family, Labels, Number, Shape, Total, Value};
use crate::metrics::{
    CATALOG, Kind, Spec,
    spec::{SCOPE_NAME, prometheus_name, unit_word},
};
use opentelemetry_proto::tonic::{common::v1::any_value, resource::v1::Resource};
use std::fmt::Write;

/// How the page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Chooses by the `Accept` header of a request.
    pub fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// The `Content-Type` of the answer.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes the page.
pub(super) fn page(families: &[Family], resource: &Resource, format: Format) -> String {
    let mut page = Page { text: String::with_capacity(64 * 1024), format };
    page.target(resource);
    let mut named: Vec<(String, &Family)> = families
        .iter()
        .map(|family| (prometheus_name(&family.name, &family.unit, family.shape == Shape::Counter), family))
        .collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named.dedup_by(|a, b| a.0 == b.0);
    named.iter().for_each(|(name, family)| page.family(name, family));
    let silent = |spec: &&Spec| !named.iter().any(|(_, family)| family.name == spec.name && !family.is_empty());
    CATALOG.iter().filter(silent).for_each(|spec| page.silent(spec));
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

struct Page {
    text: String,
    format: Format,
}

impl Page {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _a_string_takes_all = self.text.write_fmt(line);
        self.text.push('\n');
    }

    /// The resource as labels of a metric that is always 1.
    fn target(&mut self, resource: &Resource) {
        let labels: Vec<String> = resource
            .attributes
            .iter()
            .filter_map(|attribute| match attribute.value.as_ref()?.value.as_ref()? {
                any_value::Value::StringValue(text) => Some(label(&attribute.key, text)),
                any_value::Value::IntValue(number) => Some(label(&attribute.key, &number.to_string())),
                _ => None,
            })
            .collect();
        match self.format {
            Format::Prometheus => self.line(format_args!("# TYPE target_info gauge")),
            Format::OpenMetrics => self.line(format_args!("# TYPE target info")),
        }
        self.line(format_args!("target_info{{{}}} 1", labels.join(",")));
    }

    fn family(&mut self, name: &str, family: &Family) {
        if family.is_empty() {
            return;
        }
        self.head(name, family.shape, &family.help, &family.unit);
        for total in &family.totals {
            match &total.value {
                Value::Int(value) => self.counter(name, family, total, format_args!("{value}")),
                Value::Float(value) => self.counter(name, family, total, format_args!("{}", number(*value))),
                Value::Histogram(_) => self.histogram(name, family, total),
            }
        }
        for (labels, value) in &family.current {
            let labels = braces(&written(labels, family), None);
            match value {
                Number::Int(value) => self.line(format_args!("{name}{labels} {value}")),
                Number::Float(value) => self.line(format_args!("{name}{labels} {}", number(*value))),
            }
        }
    }

    fn silent(&mut self, spec: &Spec) {
        let shape = match spec.kind {
            Kind::Counter => Shape::Counter,
            Kind::Histogram => Shape::Histogram,
            Kind::Gauge | Kind::UpDownCounter => Shape::Gauge,
        };
        self.head(&spec.prometheus_name(), shape, spec.help, spec.unit);
    }

    fn head(&mut self, name: &str, shape: Shape, help: &str, unit: &str) {
        let kind = match shape {
            Shape::Counter => "counter",
            Shape::Gauge | Shape::UpDownCounter => "gauge",
            Shape::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let name = match self.format {
            Format::Prometheus => name,
            Format::OpenMetrics => base(name, shape),
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        if self.format == Format::OpenMetrics
            && let Some(word) = unit_word(unit)
            && name.ends_with(word)
        {
            self.line(format_args!("# UNIT {name} {word}"));
        }
    }

    fn counter(&mut self, name: &str, family: &Family, total: &Total, value: std::fmt::Arguments<'_>) {
        let labels = braces(&written(&total.labels, family), None);
        let exemplar = self.exemplar(total.exemplars.first());
        self.line(format_args!("{name}{labels} {value}{exemplar}"));
        self.created(base(name, Shape::Counter), &labels, total.created);
    }

    fn histogram(&mut self, name: &str, family: &Family, total: &Total) {
        let Value::Histogram(held) = &total.value else { return };
        let labels = written(&total.labels, family);
        let mut below = 0;
        for (index, count) in held.buckets.iter().enumerate() {
            below += count;
            let bound = family.bounds.get(index).map_or("+Inf".to_owned(), |bound| number(*bound));
            let labels = braces(&labels, Some(label("le", &bound)));
            let exemplar = self.exemplar(total.exemplars.get(index));
            self.line(format_args!("{name}_bucket{labels} {below}{exemplar}"));
        }
        let labels = braces(&labels, None);
        self.line(format_args!("{name}_sum{labels} {}", number(held.sum)));
        self.line(format_args!("{name}_count{labels} {}", held.count));
        self.created(name, &labels, total.created);
    }

    fn created(&mut self, base: &str, labels: &str, created: u64) {
        if self.format == Format::OpenMetrics {
            self.line(format_args!("{base}_created{labels} {}", seconds(created)));
        }
    }

    fn exemplar(&self, exemplar: Option<&Option<Exemplar>>) -> String {
        match exemplar {
            Some(Some(exemplar)) if self.format == Format::OpenMetrics => {
                let trace = uuid::Uuid::from_bytes(exemplar.trace).simple();
                format!(" # {{trace_id=\"{trace}\"}} {} {}", number(exemplar.value), seconds(exemplar.at))
            }
            _ => String::new(),
        }
    }
}

/// OpenMetrics names a counter's family without `_total`.
fn base(name: &str, shape: Shape) -> &str {
    if shape == Shape::Counter { name.strip_suffix("_total").unwrap_or(name) } else { name }
}

/// The labels, and the meter where it is not that of the catalogue.
fn written(labels: &Labels, family: &Family) -> Vec<String> {
    let meter = family.meter.iter().map(|meter| label(SCOPE_NAME, meter));
    let labels = labels.iter().map(|attribute| label(attribute.key.as_str(), &attribute.value.as_str()));
    labels.chain(meter).collect()
}

fn label(key: &str, value: &str) -> String {
    let key: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{key}=\"{value}\"")
}

fn braces(labels: &[String], last: Option<String>) -> String {
    let all: Vec<&str> = labels.iter().map(String::as_str).chain(last.as_deref()).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1_000_000_000, nanos % 1_000_000_000 / 1_000_000)
}
