//! Who may do what: permissions, the namespaces they hold for, the one who asks, and API keys.
//!
//! Pure: how a caller proves who it is, and where that is asked, is in [`runtime::access`](crate::runtime::access).

mod key;
mod permission;
mod principal;

pub use key::{ApiKey, Malformed};
pub use permission::{Grant, Permission, Unknown};
pub use principal::{Kind, Namespaces, Principal};
