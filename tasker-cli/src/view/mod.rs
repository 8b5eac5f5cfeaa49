//! How things look to people: pure functions from wire types to text, and the live view.

mod clock;
mod config;
mod dlq;
mod explain;
#[cfg(test)]
pub(crate) mod fixed;
mod frame;
mod history;
mod live;
mod metric;
mod news;
mod paint;
mod schema;
mod service;
mod state;
mod table;
mod task;
mod template;
mod text;

pub use clock::{Clock, duration};
pub use config::config;
pub use dlq::{dead_letter, dead_letters, limits};
pub use explain::explanation;
pub use history::history;
pub use live::{Follow, Live, Verdict, follow};
pub use metric::{conformity, metrics};
pub use paint::{Paint, Tone};
pub use schema::schema;
pub use service::{health, workers};
pub use state::{step_symbol, step_tone, task_symbol, task_tone};
pub use table::{Cell, Table};
pub use task::{list, overview, step, submitted};
pub use template::{name as template_name, template, templates};
pub use text::{bar, fit, one_line, plain};

/// What drawing depends on besides the thing itself.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Colours or none.
    pub paint: Paint,
    /// Columns of the terminal; `None` where lines may be as long as they are.
    pub width: Option<usize>,
    /// The time now, and the time zone.
    pub clock: Clock,
}
