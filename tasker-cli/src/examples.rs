//! The example workflows, built into the program: `demo` runs them, `dev` has them registered.

use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tasker_orchestration::{Orchestration, templates};
use tasker_shared::api::{ApplyTemplate, SubmitTask};

/// The templates, each with its file's name.
pub const TEMPLATES: [(&str, &str); 4] = [
    ("mathematical_sequence.yaml", include_str!("../../examples/templates/mathematical_sequence.yaml")),
    ("diamond.yaml", include_str!("../../examples/templates/diamond.yaml")),
    ("order_fulfillment.yaml", include_str!("../../examples/templates/order_fulfillment.yaml")),
    ("weather_report.yaml", include_str!("../../examples/templates/weather_report.yaml")),
];

const WEATHER: &str = include_str!("../../examples/data/seattle-weather.csv");

/// Registers the templates.
///
/// # Errors
/// The database refuses.
pub async fn register(orchestration: &Orchestration) -> Result<()> {
    for (file, source) in TEMPLATES {
        let request = ApplyTemplate { source: source.to_owned(), file: Some(file.to_owned()) };
        templates::apply(orchestration, &request).await.map_err(|error| {
            Error::new(crate::exit::Exit::Broken, "template", format!("failed to register {file}: {error}"))
        })?;
    }
    Ok(())
}

/// One task of each template; the weather table is written to `directory`, and its report is to be.
///
/// # Errors
/// The table cannot be written.
pub fn tasks(directory: &Path) -> Result<(Vec<SubmitTask>, PathBuf)> {
    let (table, report) = (directory.join("seattle-weather.csv"), directory.join("weather-report.md"));
    std::fs::write(&table, WEATHER)
        .map_err(|error| Error::usage(format!("failed to write {}: {error}", table.display())))?;
    let task = |namespace: &str, name: &str, input: Value| SubmitTask {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        input,
        tags: vec!["demo".to_owned()],
        source_system: Some("tasker demo".to_owned()),
        ..SubmitTask::default()
    };
    let order = json!({
        "order_id": "A-1001",
        "customer": { "name": "Ada", "email": "ada@example.org" },
        "items": [
            { "sku": "book", "quantity": 2, "unit_price_cents": 1999 },
            { "sku": "lamp", "quantity": 1, "unit_price_cents": 3450 },
        ],
    });
    let tasks = vec![
        task("rust_e2e_linear", "mathematical_sequence", json!({ "even_number": 6 })),
        task("rust_e2e_diamond", "diamond", json!({ "even_number": 6 })),
        task("order_fulfillment", "order_fulfillment", order),
        task("data_pipeline", "weather_report", json!({ "csv_path": table, "report_path": report })),
    ];
    Ok((tasks, report))
}
