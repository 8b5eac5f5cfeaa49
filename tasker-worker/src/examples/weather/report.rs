//! The report as Markdown.

use super::figures::{Group, Statistics};
use serde_json::Value;
use std::fmt::Write;

const COLUMNS: &str =
    "days | precipitation mm | mean | mean high °C | highest | mean low °C | lowest | wind m/s | weather";

/// The whole report over the table that `source` describes.
pub(super) fn markdown(source: &Value, overall: &Statistics, sections: &[(&str, Vec<Group>)]) -> String {
    let text_of = |key: &str| source[key].as_str().unwrap_or("?");
    let mut text = format!(
        "# Weather report\n\n{} days from {} to {}, read from `{}` (SHA-256 `{}`).\n\nMeans are rounded to two decimals, halves away from zero.\n",
        overall.days,
        text_of("first_date"),
        text_of("last_date"),
        text_of("csv_path"),
        text_of("sha256"),
    );
    section(&mut text, "All days", &[Group { period: "all".to_owned(), statistics: overall.clone() }]);
    for (heading, groups) in sections {
        section(&mut text, heading, groups);
    }
    text
}

fn section(text: &mut String, heading: &str, groups: &[Group]) {
    let rule = "|---:".repeat(COLUMNS.split('|').count());
    let _ = writeln!(text, "\n## {heading}\n\n| period | {COLUMNS} |\n|---{rule}|");
    for Group { period, statistics: s } in groups {
        let weather: Vec<String> = s.weather.iter().map(|(kind, days)| format!("{kind} {days}")).collect();
        let _ = writeln!(
            text,
            "| {period} | {} | {} | {:.2} | {:.2} | {} | {:.2} | {} | {:.2} | {} |",
            s.days,
            s.precipitation_total,
            s.precipitation_mean,
            s.temp_max_mean,
            s.temp_max_highest,
            s.temp_min_mean,
            s.temp_min_lowest,
            s.wind_mean,
            weather.join(", "),
        );
    }
}
