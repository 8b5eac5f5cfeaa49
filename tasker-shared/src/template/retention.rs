//! How long tasks are kept after their end, where their template says so.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long tasks of a template are kept after their end. What is not given is as the settings say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Those that are complete. Stored as `complete_after_ms`.
    #[serde(rename = "complete_after_ms", default, skip_serializing_if = "Option::is_none")]
    pub complete_after: Option<Keep>,
    /// Those that failed, were cancelled or resolved by hand. Stored as `failed_after_ms`.
    #[serde(rename = "failed_after_ms", default, skip_serializing_if = "Option::is_none")]
    pub failed_after: Option<Keep>,
}

impl Retention {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// For how long. Stored as milliseconds, or as the word `never`: the time at which they are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub enum Keep {
    /// So long.
    For(Duration),
    /// For ever.
    Forever,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Milliseconds(u64),
    Word(Word),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Never,
}

impl From<Stored> for Keep {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Milliseconds(milliseconds) => Self::For(Duration::from_millis(milliseconds)),
            Stored::Word(Word::Never) => Self::Forever,
        }
    }
}

impl From<Keep> for Stored {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::For(age) => Self::Milliseconds(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            Keep::Forever => Self::Word(Word::Never),
        }
    }
}
