//! A database that does not answer, and the built-in settings.

use std::time::Duration;
use tasker_shared::{
    config::{Config, Sources},
    metrics::Metrics,
    storage::{Database, Options},
};

pub(super) fn database() -> Database {
    let options = Options {
        url: "postgres://nobody@127.0.0.1:1/nothing".into(),
        max_connections: 1,
        connect_timeout: Duration::from_millis(1),
        acquire_timeout: Duration::from_millis(1),
        statement_timeout: Duration::from_secs(1),
        application_name: "fuzz".into(),
        own_names_only: true,
    };
    Database::deferred(&options, Metrics::disabled()).expect("the URL is one")
}

pub(super) fn configured() -> Config {
    Config::load(&Sources::built_in("test")).expect("the built-in configuration is valid")
}
