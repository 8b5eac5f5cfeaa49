//! Who asks, and whether it may: the one gate of the HTTP of both services.
//!
//! [`Authenticator`] turns the header `authorization` into a [`Principal`](crate::access::Principal). [`guarded`]
//! stands before every route: it looks the route up in the service's table of [`Route`]s, puts the principal into the
//! request's extensions, where limits and handlers find it, and asks for what the table says. What is not in a table is refused.

mod audit;
mod authenticator;
mod gate;
mod keys;
mod published;
mod routes;
mod signature;
mod tokens;

pub(crate) use audit::Reason;
pub use audit::Target;
pub use authenticator::{Authenticator, Denied, Error};
pub use gate::{Guard, guarded, outside};
pub use published::usable_keys;
pub use routes::{Access, COMMON, Reach, Route};
