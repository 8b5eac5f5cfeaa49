//! Settings: one default file, overlays by environment, environment variables on top.
//!
//! `config/tasker/base.toml` lists and explains every key. [`Config::load`] is a function of [`Sources`] alone; it reads
//! everything, checks every value where it is written, and reports all that is wrong at once. A key is enforced or
//! refused: what is not known is an error with a suggestion.

mod auth;
pub mod breakers;
mod describe;
mod error;
mod keys;
mod layer;
mod network;
mod retention;
mod rules;
mod sections;
mod sources;
pub mod telemetry;
#[cfg(test)]
mod tests;

pub use auth::{Auth, Jwt};
pub use describe::Setting;
pub use error::{Error, Problem};
pub use network::{Invalid as InvalidNetwork, Network};
pub use retention::{NEVER, Retention, age};
pub(crate) use sections::host_name;
pub use sections::{Command, Database, Http, Orchestration, RateLimits, Tls, Worker};
pub use sources::Sources;

use ::config::{ConfigError, Map, Source, ValueKind};
use keys::Value;
use layer::Layer;
use serde::Deserialize;
use std::fmt;

/// Where a value is written: a file's path, or `variable` and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The whole configuration of a process, checked.
#[derive(Clone)]
pub struct Config {
    /// The name of the environment, such as `development`.
    pub environment: String,
    /// How to reach PostgreSQL.
    pub database: Database,
    /// Who may use the HTTP of both services.
    pub auth: Auth,
    /// The orchestration service.
    pub orchestration: Orchestration,
    /// The worker service and its built-in handlers.
    pub worker: Worker,
    /// When circuit breakers open.
    pub breakers: breakers::Breakers,
    /// What is removed when it is old.
    pub retention: Retention,
    /// Metrics, traces and logs.
    pub telemetry: telemetry::Settings,
    settings: Vec<Setting>,
}

/// Shows what [`Config::describe`] shows, so that no secret reaches a log.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.settings.iter().map(|setting| (setting.key, &setting.value))).finish()
    }
}

/// The sections of the files.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    database: Database,
    auth: Auth,
    orchestration: Orchestration,
    worker: Worker,
    breakers: breakers::Breakers,
    retention: Retention,
    telemetry: telemetry::Settings,
}

impl Config {
    /// Reads, merges and checks everything. Only files are touched: variables come from `sources`.
    ///
    /// # Errors
    /// [`Error`] holds everything that is wrong.
    pub fn load(sources: &Sources) -> Result<Self, Error> {
        let builder = sources
            .layers()?
            .into_iter()
            .fold(::config::Config::builder(), |builder, layer| builder.add_source(Checked(layer)));
        let merged = builder.build().map_err(inconsistent)?;
        let settings = describe::settings(&merged).map_err(inconsistent)?;
        let sections: Sections = merged.try_deserialize().map_err(inconsistent)?;
        let config = Self {
            environment: sources.environment().to_owned(),
            database: sections.database,
            auth: sections.auth,
            orchestration: sections.orchestration,
            worker: sections.worker,
            breakers: sections.breakers,
            retention: sections.retention,
            telemetry: sections.telemetry,
            settings,
        };
        let problems = rules::broken(&config);
        if problems.is_empty() { Ok(config) } else { Err(Error { problems }) }
    }

    /// Every key with the value in force and where it came from, in the order of the default file. Secrets are not shown.
    pub fn describe(&self) -> &[Setting] {
        &self.settings
    }
}

/// Every value was checked before, so what is left is a default file that does not fit the sections.
#[expect(clippy::needless_pass_by_value, reason = "it is used as a function of map_err")]
fn inconsistent(error: ConfigError) -> Error {
    Problem::Defaults(error.to_string()).into()
}

/// A layer as a source of the `config` crate, which merges them.
#[derive(Debug, Clone)]
struct Checked(Layer);

impl Source for Checked {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, ::config::Value>, ConfigError> {
        let entry = |(key, (value, origin)): (&&str, &(Value, Origin))| {
            let kind = match value.clone() {
                Value::Integer(number) => ValueKind::I64(number),
                Value::Number(number) => ValueKind::Float(number),
                Value::Flag(flag) => ValueKind::Boolean(flag),
                Value::Text(text) => ValueKind::String(text),
                Value::Pairs(pairs) => ValueKind::Table(pairs.into_iter().map(|(k, v)| (k, v.into())).collect()),
                Value::List(items) => ValueKind::Array(items.into_iter().map(Into::into).collect()),
            };
            ((*key).to_owned(), ::config::Value::new(Some(&origin.0), kind))
        };
        Ok(self.0.iter().map(entry).collect())
    }
}
