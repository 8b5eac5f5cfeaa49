//! Whether something grows: the median of the last quarter of the samples against that of the second, when everything is warm.

use super::{Report, Sample};
use crate::median::median;
use serde::Serialize;
use std::fmt::Write as _;

const MIB: f64 = 1_048_576.0;

/// What must stay flat: by which factor it may grow, and by how much on top, for what is small.
const BOUNDS: [(&str, Reading, f64, f64); 9] = [
    ("latency p50, ms", |s| s.p50_ms, 1.5, 10.0),
    ("latency p95, ms", |s| s.p95_ms, 1.5, 25.0),
    ("latency p99, ms", |s| s.p99_ms, 2.0, 50.0),
    ("tables, bytes", |s| s.tables, 1.25, 8.0 * MIB),
    ("queues, bytes", |s| s.queues, 1.25, 8.0 * MIB),
    ("indexes, bytes", |s| s.indexes, 1.25, 8.0 * MIB),
    ("dead rows", |s| s.dead_rows, 1.5, 20_000.0),
    ("orchestration memory, bytes", |s| s.orchestration, 1.1, 8.0 * MIB),
    ("worker memory, bytes", |s| s.worker, 1.1, 8.0 * MIB),
];

type Reading = fn(&Sample) -> f64;

/// One thing that must stay flat.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// What.
    pub what: &'static str,
    /// Median of the second quarter.
    pub second_quarter: f64,
    /// Median of the last quarter.
    pub last_quarter: f64,
    /// The most that the last quarter may show.
    pub bound: f64,
    /// Whether it is within.
    pub flat: bool,
}

/// Judges; with less than eight samples there is nothing to judge.
pub fn judge(samples: &[Sample]) -> Vec<Judged> {
    if samples.len() < 8 {
        return Vec::new();
    }
    let quarter = samples.len() / 4;
    let (second, last) = (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..]);
    let judged = |(what, reading, factor, more): (&'static str, Reading, f64, f64)| {
        let (second_quarter, last_quarter) = (median_of(second, reading), median_of(last, reading));
        let bound = second_quarter * factor + more;
        Judged { what, second_quarter, last_quarter, bound, flat: last_quarter <= bound }
    };
    BOUNDS.into_iter().map(judged).collect()
}

fn median_of(samples: &[Sample], reading: Reading) -> f64 {
    median(&mut samples.iter().map(reading).collect::<Vec<_>>())
}

/// The report for people.
pub(super) fn table(report: &Report) -> String {
    let mut text = format!(
        "{:>6} {:>8} {:>8} {:>8} {:>8} {:>10} {:>10} {:>10} {:>10} {:>9} {:>10} {:>10}\n",
        "s",
        "tasks/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "tables MB",
        "queues MB",
        "index MB",
        "dead rows",
        "tasks",
        "orch MB",
        "worker MB"
    );
    let shown = report.samples.len().div_ceil(24).max(1);
    for s in report.samples.iter().step_by(shown) {
        let _ = writeln!(
            text,
            "{:>6.0} {:>8.0} {:>8.1} {:>8.1} {:>8.1} {:>10.1} {:>10.1} {:>10.1} {:>10.0} {:>9.0} {:>10.1} {:>10.1}",
            s.at,
            s.tasks_per_second,
            s.p50_ms,
            s.p95_ms,
            s.p99_ms,
            s.tables / MIB,
            s.queues / MIB,
            s.indexes / MIB,
            s.dead_rows,
            s.tasks,
            s.orchestration / MIB,
            s.worker / MIB
        );
    }
    let _ = writeln!(
        text,
        "\n{} steps of {} tasks in {:.0} s: {:.0} steps/s; {} tasks left",
        report.steps,
        report.tasks,
        report.seconds,
        report.steps as f64 / report.seconds,
        report.tasks_left
    );
    for (name, size) in &report.largest {
        let _ = writeln!(text, "  {name:<28} {:>8.1} MB", *size as f64 / MIB);
    }
    let _ = writeln!(text, "\n{:<28} {:>14} {:>14} {:>14}", "medians", "2nd quarter", "last quarter", "bound");
    for j in &report.judged {
        let verdict = if j.flat { "flat" } else { "GROWS" };
        let _ = writeln!(
            text,
            "{:<28} {:>14.1} {:>14.1} {:>14.1}  {verdict}",
            j.what, j.second_quarter, j.last_quarter, j.bound
        );
    }
    if report.judged.is_empty() {
        text.push_str("too few samples to judge: run longer, or sample more often\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS, Sample, judge};

    fn samples(growth: f64) -> Vec<Sample> {
        let sample = |n: u32| {
            let value = 1e9 * (1.0 + growth * f64::from(n) / 40.0);
            Sample {
                p50_ms: value,
                p95_ms: value,
                p99_ms: value,
                tables: value,
                queues: value,
                indexes: value,
                dead_rows: value,
                orchestration: value,
                worker: value,
                ..Sample::default()
            }
        };
        (0..40).map(sample).collect()
    }

    #[test]
    fn what_stays_is_flat_and_what_doubles_is_not() {
        assert!(judge(&samples(0.0)).iter().all(|judged| judged.flat));
        let grown = judge(&samples(20.0));
        assert_eq!((grown.len(), grown.iter().filter(|judged| judged.flat).count()), (BOUNDS.len(), 0), "{grown:#?}");
    }

    #[test]
    fn what_is_high_only_while_it_warms_up_or_for_a_moment_is_flat() {
        let mut samples = samples(0.0);
        for place in [0, 3, 5, 33, 38] {
            samples[place].tables *= 10.0;
            samples[place].p99_ms *= 10.0;
        }
        assert!(judge(&samples).iter().all(|judged| judged.flat));
    }

    #[test]
    fn a_handful_of_samples_is_no_verdict() {
        assert_eq!(judge(&samples(0.0)[..7]), []);
    }
}
