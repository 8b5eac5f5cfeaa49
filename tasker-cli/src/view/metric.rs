//! The catalogue of metrics.

use super::{Cell, Look, Table, Tone};
use tasker_shared::metrics::Spec;

/// The metrics as a table.
pub fn metrics(specs: &[&Spec], look: &Look) -> String {
    if specs.is_empty() {
        return "no metric has this in its name; `tasker metrics list` shows all".to_owned();
    }
    let mut table = Table::new(look, ["PROMETHEUS", "KIND", "UNIT", "LABELS", "WHAT"], &["LABELS", "WHAT"]);
    for spec in specs {
        table.row([
            Cell::toned(Tone::Strong, spec.prometheus_name()),
            spec.kind.as_str().into(),
            spec.unit.into(),
            spec.labels.join(" ").into(),
            spec.help.into(),
        ]);
    }
    table.draw()
}
