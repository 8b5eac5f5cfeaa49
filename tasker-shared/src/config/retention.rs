//! The section `[retention]`: how old things become before they are removed.

use super::sections::milliseconds;
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// The age that nothing reaches.
pub const NEVER: &str = "never";

/// How long what has ended is kept. `None` is for ever.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Complete tasks, after their end.
    #[serde(deserialize_with = "written")]
    pub complete_after: Option<Duration>,
    /// Tasks that ended otherwise, after their end.
    #[serde(deserialize_with = "written")]
    pub failed_after: Option<Duration>,
    /// Tasks with an identity are kept at least so long after their end.
    #[serde(deserialize_with = "written")]
    pub identity_after: Option<Duration>,
    /// Whether tasks are archived before they are removed.
    pub archive: bool,
    /// Archived tasks, after they were archived.
    #[serde(deserialize_with = "written")]
    pub archived_after: Option<Duration>,
    /// Dead letters, after they were resolved.
    #[serde(deserialize_with = "written")]
    pub dead_letters_after: Option<Duration>,
    /// Messages in the archives of queues, after they came there.
    #[serde(deserialize_with = "written")]
    pub queue_archives_after: Option<Duration>,
    /// Workers, after their last heartbeat.
    #[serde(deserialize_with = "written")]
    pub workers_after: Option<Duration>,
    /// The record of what operators did.
    #[serde(deserialize_with = "written")]
    pub audit_after: Option<Duration>,
    /// The time between two looks for what is old.
    #[serde(rename = "sweep_interval_ms", deserialize_with = "milliseconds")]
    pub sweep_interval: Duration,
    /// The most steps of tasks, or rows of another table, of one transaction.
    pub batch_size: i64,
}

impl Retention {
    /// Nothing is ever removed.
    pub const fn never() -> Self {
        Self {
            complete_after: None,
            failed_after: None,
            identity_after: None,
            archive: false,
            archived_after: None,
            dead_letters_after: None,
            queue_archives_after: None,
            workers_after: None,
            audit_after: None,
            sweep_interval: Duration::from_secs(60),
            batch_size: 2000,
        }
    }
}

/// Reads an age: `30d`, `12h`, or `never`, for which `0` stands too.
///
/// # Errors
/// What is wrong with the text.
pub fn age(text: &str) -> Result<Option<Duration>, humantime::DurationError> {
    if text == NEVER {
        return Ok(None);
    }
    humantime::parse_duration(text).map(|age| Some(age).filter(|age| !age.is_zero()))
}

fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    age(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::age;
    use std::time::Duration;

    #[test]
    fn an_age_is_a_span_of_time_or_never() {
        let days = |n: u64| Some(Duration::from_secs(n * 86_400));
        for (text, expected) in
            [("30d", days(30)), ("1d 12h", days(1).map(|d| d + d / 2)), ("never", None), ("0", None), ("0s", None)]
        {
            assert_eq!(age(text).unwrap(), expected, "{text}");
        }
        for text in ["", "30", "-1d", "soon", "30 fortnights"] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
