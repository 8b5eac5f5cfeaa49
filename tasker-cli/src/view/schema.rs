//! The database's schema, against what this program needs.

use super::{Look, Tone};
use tasker_shared::storage::schema::{Pgmq, Status};

/// Where the schema stands, and what to do.
pub fn schema(status: &Status, target: &str, look: &Look) -> String {
    let pgmq = match &status.pgmq {
        Pgmq::Extension(version) => format!("{version}, the server's extension"),
        Pgmq::Sql(version) => format!("{version}, installed from SQL"),
        Pgmq::Foreign => "of unknown origin".to_owned(),
        Pgmq::Absent => "not installed".to_owned(),
    };
    let (tone, verdict) = match (status.is_current(), status.unknown.is_empty()) {
        (true, _) => (Tone::Good, "✓ current".to_owned()),
        (false, false) if status.is_usable() => {
            let newer = format!("✓ has migrations {} of a newer tasker, and is compatible", numbers(&status.unknown));
            (Tone::Good, newer)
        }
        (false, false) => {
            (Tone::Bad, format!("✗ has migrations {} of a newer tasker; use that", numbers(&status.unknown)))
        }
        (false, true) if status.applied.is_empty() => {
            (Tone::Warn, "✗ not installed: run `tasker db migrate`".to_owned())
        }
        (false, true) if status.missing.is_empty() => {
            (Tone::Warn, format!("✗ lacks queues {}: run `tasker db migrate`", status.missing_queues.join(", ")))
        }
        (false, true) => {
            (Tone::Warn, format!("✗ lacks migrations {}: run `tasker db migrate`", numbers(&status.missing)))
        }
    };
    let version = status.applied.last().map_or_else(|| "none".to_owned(), i64::to_string);
    let rows = [
        ("database", target.to_owned()),
        ("server", format!("PostgreSQL {}", status.server)),
        ("pgmq", pgmq),
        ("version", version),
        ("schema", look.paint.paint(tone, &verdict)),
    ];
    let line =
        |(name, value): &(&str, String)| format!("{}{value}", look.paint.paint(Tone::Quiet, &format!("{name:<13}")));
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn numbers(versions: &[i64]) -> String {
    versions.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::schema;
    use crate::view::fixed::look;
    use tasker_shared::storage::schema::{Pgmq, Status};

    fn status(applied: &[i64], missing: &[i64], unknown: &[i64]) -> Status {
        Status {
            server: "15.18".into(),
            pgmq: Pgmq::Sql("1.11.1".into()),
            applied: applied.into(),
            missing: missing.into(),
            unknown: unknown.into(),
            missing_queues: Vec::new(),
            newest: 2,
            compatible_from: None,
        }
    }

    fn verdict(status: &Status) -> String {
        schema(status, "here", &look()).lines().last().unwrap().to_owned()
    }

    #[test]
    fn a_current_schema_is_shown_with_where_it_is() {
        let text = schema(&status(&[1, 2], &[], &[]), "127.0.0.1:5432/tasker", &look());
        let expected = "\
database     127.0.0.1:5432/tasker
server       PostgreSQL 15.18
pgmq         1.11.1, installed from SQL
version      2
schema       ✓ current";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_other_schema_says_what_to_do() {
        assert!(verdict(&status(&[], &[1, 2], &[])).ends_with("not installed: run `tasker db migrate`"));
        assert!(verdict(&status(&[1], &[2], &[])).ends_with("lacks migrations 2: run `tasker db migrate`"));
        let short = Status { missing_queues: vec!["step_results".into()], ..status(&[1, 2], &[], &[]) };
        assert!(verdict(&short).ends_with("lacks queues step_results: run `tasker db migrate`"));
        assert!(verdict(&status(&[1, 2, 3], &[], &[3])).ends_with("has migrations 3 of a newer tasker; use that"));
        let compatible = Status { compatible_from: Some(2), ..status(&[1, 2, 3], &[], &[3]) };
        assert!(verdict(&compatible).ends_with("✓ has migrations 3 of a newer tasker, and is compatible"));
        let breaking = Status { compatible_from: Some(3), ..status(&[1, 2, 3], &[], &[3]) };
        assert!(verdict(&breaking).ends_with("has migrations 3 of a newer tasker; use that"));
    }
}
