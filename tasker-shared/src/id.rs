//! Identifiers: UUIDv7, made by the application, one type for each kind of thing.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new, time-ordered id.
            pub fn generate() -> Self { Self(new_v7()) }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(&self.0, f) }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> { text.parse().map(Self) }
        }
    )*};
}

ids! {
    /// One version of a template as it is stored.
    TemplateId
    /// One task.
    TaskId
    /// One step of one task.
    StepId
    /// Joins a task with its traces, logs and metrics; its 16 bytes are the trace id.
    CorrelationId
    /// One running worker process.
    WorkerId
    /// One parked message.
    DeadLetterId
    /// One request that the service failed to answer; joins the answer with the log.
    RequestId
}

#[expect(clippy::disallowed_methods, reason = "the one place where ids are made")]
fn new_v7() -> Uuid {
    Uuid::now_v7()
}
