//! What PromQL's `increase()` makes of the samples of one series: its rules, as `extrapolatedRate` in Prometheus has them.

use super::sums::Sample;
use std::time::Duration;

/// The increase in the `window` that ends `at` (since 1970). Samples are in the order of their times.
pub(super) fn increase(samples: &[Sample], at: Duration, window: Duration) -> f64 {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let (end, start) = (millis(at), millis(at.saturating_sub(window)));
    let inside = |(time, value): &Sample| Some((*time, (*value)?)).filter(|(time, _)| *time > start && *time <= end);
    let mut inside: Vec<(i64, f64)> = samples.iter().filter_map(inside).collect();
    // a time that was sent twice is stored once
    inside.dedup_by_key(|(time, _)| *time);
    let (Some(first), Some(last)) = (inside.first(), inside.last()) else { return 0.0 };
    if inside.len() < 2 {
        return 0.0;
    }
    let seconds = |from: i64, to: i64| (to - from) as f64 / 1_000.0;
    let resets: f64 = inside.windows(2).filter(|pair| pair[1].1 < pair[0].1).map(|pair| pair[0].1).sum();
    let grown = last.1 - first.1 + resets;
    let sampled = seconds(first.0, last.0);
    let between = sampled / (inside.len() - 1) as f64;
    let edge = |distance: f64| if distance >= between * 1.1 { between / 2.0 } else { distance };
    let mut before = edge(seconds(start, first.0));
    if grown > 0.0 && first.1 >= 0.0 {
        // a counter is not extrapolated to below zero
        before = before.min(sampled * (first.1 / grown));
    }
    grown * (sampled + before + edge(seconds(last.0, end))) / sampled
}

#[cfg(test)]
mod tests {
    use super::increase;
    use std::time::Duration;

    const WINDOW: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_series_that_ended_is_continued_by_half_an_interval() {
        let ended = [(500_000, Some(0.0)), (560_000, Some(1.0)), (560_001, None)];
        assert_eq!(increase(&ended, at(1_000), WINDOW), 1.5);
    }

    #[test]
    fn a_series_that_goes_on_is_continued_to_the_end_of_the_window() {
        let living = [(800_000, Some(0.0)), (860_000, Some(3.0)), (920_000, Some(3.0)), (980_000, Some(3.0))];
        assert_eq!(increase(&living, at(998), WINDOW), 3.0 * 198.0 / 180.0);
    }

    #[test]
    fn one_sample_is_no_increase() {
        assert_eq!(increase(&[(900_000, Some(7.0))], at(1_000), WINDOW), 0.0);
    }
}
