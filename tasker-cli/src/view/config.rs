//! The services' configuration.

use super::{Cell, Look, Table, Tone};
use tasker_shared::config::Config;

/// Every setting with its value and where that is written.
pub fn config(config: &Config, look: &Look) -> String {
    let mut table = Table::new(look, ["KEY", "VALUE", "WRITTEN IN"], &["VALUE", "WRITTEN IN"]);
    for setting in config.describe() {
        let origin = setting.origin.to_string();
        table.row([setting.key.into(), setting.value.as_str().into(), Cell::toned(Tone::Quiet, origin)]);
    }
    format!("environment {}\n\n{}", look.paint.paint(Tone::Strong, &config.environment), table.draw())
}
