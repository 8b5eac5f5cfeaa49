//! The catalogue of metrics.

use super::{Cell, Look, Table, Tone};
use tasker_shared::metrics::{CATALOG, Conformity, Spec};

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

/// How services keep to the catalogue.
pub fn conformity(found: &Conformity, urls: &[String], look: &Look) -> String {
    let (known, tone) = (found.present.len() + found.silent.len(), if found.holds() { Tone::Good } else { Tone::Bad });
    let sum =
        format!("{known} of {} documented metrics are known, {} are measured", CATALOG.len(), found.present.len());
    let mut text = format!("{}  {}", look.paint.paint(tone, &sum), urls.join(" "));
    for (tone, title, names) in [
        (Tone::Bad, "missing: no service knows them", &found.missing),
        (Tone::Bad, "unexpected: not documented", &found.unexpected),
        (Tone::Bad, "different", &found.different),
        (Tone::Quiet, "silent: known, and not measured yet", &found.silent),
        (Tone::Quiet, "of the handlers' own meters", &found.own),
    ] {
        if !names.is_empty() {
            let names: String = names.iter().map(|name| format!("\n  {}", super::one_line(name))).collect();
            text.push_str(&format!("\n\n{}{names}", look.paint.paint(tone, title)));
        }
    }
    text
}
