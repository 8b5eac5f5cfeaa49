//! The section `[breakers]`: when circuit breakers open, and for how long.

use super::sections::milliseconds;
use crate::breaker::Policy;
use serde::Deserialize;
use std::time::Duration;

/// Every circuit breaker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breakers {
    /// Those around the database: `api_database`, `pgmq` and `task_readiness`.
    pub database: Breaker,
    /// Those around each host that the handler `http` calls.
    pub http_handler: HttpHandler,
    /// The one around the channel of outcomes of handlers that are not Rust.
    pub ffi_completion: FfiCompletion,
}

macro_rules! breakers {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $ty:ty $(= $key:literal)?,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// So many failures in a row open it.
            pub failures: u32,
            /// The first of them counts no longer than this.
            #[serde(rename = "window_ms", deserialize_with = "milliseconds")]
            pub window: Duration,
            /// How long nothing passes before the first try.
            #[serde(rename = "open_ms", deserialize_with = "milliseconds")]
            pub open: Duration,
            /// The longest time between two tries.
            #[serde(rename = "longest_open_ms", deserialize_with = "milliseconds")]
            pub longest_open: Duration,
            $($(#[$field_doc])* $(#[serde(rename = $key, deserialize_with = "milliseconds")])? pub $field: $ty,)*
        }

        impl $name {
            /// As the breaker takes it.
            pub fn policy(&self) -> Policy {
                Policy { failures: self.failures, window: self.window, open: self.open, longest_open: self.longest_open }
            }
        }
    )*};
}

breakers! {
    /// One kind of breaker.
    Breaker {}
    /// Breakers around hosts.
    HttpHandler {
        /// How many failing hosts are remembered.
        max_hosts: usize,
    }
    /// The breaker around the channel of outcomes.
    FfiCompletion {
        /// A send that takes longer is slow.
        slow_send: Duration = "slow_send_ms",
    }
}
