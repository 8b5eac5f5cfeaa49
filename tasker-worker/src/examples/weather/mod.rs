//! A report over a table of daily weather. The first step reads and checks the file and hands on its path and checksum, so
//! that results stay small; the steps after it read the file again and refuse one that has changed.

mod figures;
mod report;
mod table;

use super::{Call, Failed};
use figures::{Group, Statistics};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, path::Path};
use table::Day;

/// The longest file, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Reads the table at the input's `csv_path` and checks every row.
pub(super) fn load_and_validate(call: &Call<'_>) -> Result<Value, Failed> {
    let path = call.input_text("csv_path")?;
    let text = read(path)?;
    let days = table::parse(&text).map_err(|error| Failed::for_good(format!("{path}: {error}")))?;
    let (Some(first), Some(last)) = (days.first(), days.last()) else {
        return Err(Failed::for_good(format!("{path}: the table has no rows")));
    };
    Ok(json!({
        "csv_path": path,
        "sha256": checksum(text.as_bytes()),
        "rows": days.len(),
        "first_date": first.date.to_string(),
        "last_date": last.date.to_string(),
    }))
}

/// The figures of each year, and of all days together.
pub(super) fn yearly_statistics(call: &Call<'_>) -> Result<Value, Failed> {
    let days = checked_days(call)?;
    let years = figures::by(&days, |day| day.year().to_string());
    Ok(
        json!({ "overall": figures::by(&days, |_| "all".to_owned()).pop().map(|group| group.statistics), "years": years }),
    )
}

/// The figures of each calendar month over all years, and of each month of each year.
pub(super) fn monthly_statistics(call: &Call<'_>) -> Result<Value, Failed> {
    let days = checked_days(call)?;
    let calendar_months = figures::by(&days, |day| format!("{:02}", day.month()));
    let months = figures::by(&days, |day| format!("{}-{:02}", day.year(), day.month()));
    Ok(json!({ "calendar_months": calendar_months, "months": months }))
}

/// Writes the figures as Markdown to the input's `report_path`, and gives them back.
pub(super) fn write_report(call: &Call<'_>) -> Result<Value, Failed> {
    let path = call.input_text("report_path")?;
    let source = call.parent("load_and_validate")?;
    let yearly = call.parent("yearly_statistics")?;
    let monthly = call.parent("monthly_statistics")?;
    let groups = |from: &Value, key: &str| {
        serde_json::from_value::<Vec<Group>>(from[key].clone())
            .map_err(|error| Failed::for_good(format!("the figures `{key}` cannot be read: {error}")))
    };
    let overall = serde_json::from_value::<Statistics>(yearly["overall"].clone())
        .map_err(|error| Failed::for_good(format!("the figures `overall` cannot be read: {error}")))?;
    let sections = [
        ("Years", groups(yearly, "years")?),
        ("Calendar months, all years together", groups(monthly, "calendar_months")?),
        ("Months", groups(monthly, "months")?),
    ];
    let text = report::markdown(source, &overall, &sections);
    write(path, &text).map_err(|error| Failed::for_now(format!("{path} cannot be written: {error}")))?;
    let [(_, years), (_, calendar_months), _] = sections;
    Ok(json!({
        "report_path": path,
        "sha256": checksum(text.as_bytes()),
        "overall": overall,
        "years": years,
        "calendar_months": calendar_months,
    }))
}

/// The days of the file that `load_and_validate` checked.
fn checked_days(call: &Call<'_>) -> Result<Vec<Day>, Failed> {
    let loaded = call.parent("load_and_validate")?;
    let (Some(path), Some(expected)) = (loaded["csv_path"].as_str(), loaded["sha256"].as_str()) else {
        return Err(Failed::for_good("`load_and_validate` gave no `csv_path` and `sha256`"));
    };
    let text = read(path)?;
    if checksum(text.as_bytes()) != expected {
        return Err(Failed::for_good(format!("{path} has changed since it was checked")));
    }
    table::parse(&text).map_err(|error| Failed::for_good(format!("{path}: {error}")))
}

fn read(path: &str) -> Result<String, Failed> {
    let cannot = |error: std::io::Error| Failed::for_good(format!("{path} cannot be read: {error}"));
    let length = fs::metadata(path).map_err(cannot)?.len();
    if length > MAX_BYTES {
        return Err(Failed::for_good(format!("{path} has {length} bytes, at most {MAX_BYTES} are read")));
    }
    fs::read_to_string(path).map_err(cannot)
}

/// Whole or not at all: a reader never sees half a report.
fn write(path: &str, text: &str) -> std::io::Result<()> {
    if let Some(directory) = Path::new(path).parent() {
        fs::create_dir_all(directory)?;
    }
    let unfinished = format!("{path}.unfinished");
    fs::write(&unfinished, text)?;
    fs::rename(&unfinished, path)
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Days by a key, in the order of the keys.
fn grouped(days: &[Day], key: impl Fn(&Day) -> String) -> BTreeMap<String, Vec<&Day>> {
    let mut groups: BTreeMap<String, Vec<&Day>> = BTreeMap::new();
    for day in days {
        groups.entry(key(day)).or_default().push(day);
    }
    groups
}
