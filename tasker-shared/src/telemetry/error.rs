//! Why telemetry could not be started.

use crate::metrics::Signal;
use std::path::PathBuf;

/// Why telemetry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable of the environment is not understood.
    #[error("{name} is `{value}`; give {expected}, or unset it")]
    Variable {
        /// Its name.
        name: String,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Headers of the environment are not understood; what they are is secret.
    #[error("{name} is not understood, and not shown; give key=value,key=value, or unset it")]
    Headers {
        /// The variable.
        name: String,
    },
    /// `telemetry.sample_rate` is out of range.
    #[error("telemetry.sample_rate is {0}; give a number from 0 to 1")]
    SampleRate(f64),
    /// The way to a collector cannot be made.
    #[error("{signal} cannot be sent to `{endpoint}`: {reason}; give an address such as http://localhost:4317")]
    Endpoint {
        /// What is sent.
        signal: Signal,
        /// To where.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
    /// The certificate of the collector's authority cannot be read.
    #[error("the certificate `{path}` of the collector's authority cannot be read", path = path.display())]
    Certificate {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What shall be logged is not understood.
    #[error(
        "the log filter `{filter}` is not understood: {reason}; give RUST_LOG or telemetry.logs.level a level such as `info`, or `tasker=debug,info`"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong.
        reason: String,
    },
    /// Another part of the program has taken the logs.
    #[error("logs already go elsewhere: {0}; start telemetry first, and once")]
    LogsTaken(String),
    /// There is no thread for the collection.
    #[error("the operating system gives no thread for the collection of metrics")]
    Thread(#[source] std::io::Error),
}
