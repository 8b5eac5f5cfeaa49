//! The reference page: the catalogue as Markdown.

use super::{CATALOG, Spec};
use std::fmt::Write;

/// The page `docs/metrics.md`, generated.
pub fn reference_page() -> String {
    let mut page = String::from(concat!(
        "# Metrics\n\n",
        "Generated from the catalogue in `tasker-shared/src/metrics/catalog.rs`.\n\n",
        "| OpenTelemetry name | in Prometheus | kind | unit | labels | meaning |\n",
        "|---|---|---|---|---|---|\n",
    ));
    for spec in CATALOG {
        row(&mut page, spec);
    }
    page.push_str("\nHistograms and the upper bounds of their buckets, in the unit of the metric:\n\n");
    for spec in CATALOG.iter().filter(|spec| !spec.buckets.is_empty()) {
        let bounds: Vec<String> = spec.buckets.iter().map(f64::to_string).collect();
        let _infallible = writeln!(page, "- `{}`: {}", spec.name, bounds.join(", "));
    }
    page.push('\n');
    page.push_str(&super::cardinality::section());
    page
}

fn row(page: &mut String, spec: &Spec) {
    let labels: Vec<String> = spec.labels.iter().map(|label| format!("`{label}`")).collect();
    let unit = if spec.unit.is_empty() { String::new() } else { format!("`{}`", spec.unit) };
    let _infallible = writeln!(
        page,
        "| `{}` | `{}` | {} | {unit} | {} | {} |",
        spec.name,
        spec.prometheus_name(),
        spec.kind.as_str(),
        labels.join(", "),
        spec.help,
    );
}
