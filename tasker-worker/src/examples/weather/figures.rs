//! The figures of a group of days. Sums are exact; means are rounded to two decimals, halves away from zero.

use super::{grouped, table::Day};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The figures of one group, such as a year.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Group {
    /// Which group: `2012`, `01` or `2012-01`.
    pub(super) period: String,
    #[serde(flatten)]
    pub(super) statistics: Statistics,
}

/// The figures. Precipitation in millimetres, temperatures in degrees Celsius, wind in metres per second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Statistics {
    pub(super) days: usize,
    pub(super) precipitation_total: f64,
    pub(super) precipitation_mean: f64,
    /// The mean of the days' highest temperatures.
    pub(super) temp_max_mean: f64,
    /// The highest of them.
    pub(super) temp_max_highest: f64,
    /// The mean of the days' lowest temperatures.
    pub(super) temp_min_mean: f64,
    /// The lowest of them.
    pub(super) temp_min_lowest: f64,
    pub(super) wind_mean: f64,
    /// Days by kind of weather.
    pub(super) weather: BTreeMap<String, usize>,
}

/// The figures of the groups that `period` makes, in the order of the periods.
pub(super) fn by(days: &[Day], period: impl Fn(&Day) -> String) -> Vec<Group> {
    let figures = |(period, days): (String, Vec<&Day>)| Group { period, statistics: of(&days) };
    grouped(days, period).into_iter().map(figures).collect()
}

/// The figures of `days`, of which there is at least one.
fn of(days: &[&Day]) -> Statistics {
    let sum = |column: fn(&Day) -> i64| days.iter().map(|day| column(day)).sum::<i64>();
    let mean = |column| hundredths(sum(column), days.len());
    let mut weather = BTreeMap::new();
    for day in days {
        *weather.entry(day.weather.clone()).or_insert(0) += 1;
    }
    Statistics {
        days: days.len(),
        precipitation_total: sum(|day| day.precipitation) as f64 / 1_000.0,
        precipitation_mean: mean(|day| day.precipitation),
        temp_max_mean: mean(|day| day.temp_max),
        temp_max_highest: days.iter().map(|day| day.temp_max).max().unwrap_or(0) as f64 / 1_000.0,
        temp_min_mean: mean(|day| day.temp_min),
        temp_min_lowest: days.iter().map(|day| day.temp_min).min().unwrap_or(0) as f64 / 1_000.0,
        wind_mean: mean(|day| day.wind),
        weather,
    }
}

/// The mean of `count` numbers that add up to `thousandths`, rounded to two decimals, halves away from zero.
fn hundredths(thousandths: i64, count: usize) -> f64 {
    let divisor = 10 * i64::try_from(count.max(1)).unwrap_or(i64::MAX / 10);
    let rounded = (thousandths.abs() + divisor / 2) / divisor;
    (rounded * thousandths.signum()) as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::hundredths;

    #[test]
    fn means_are_rounded_to_two_decimals_with_halves_away_from_zero() {
        for (thousandths, count, expected) in [
            (5, 1, 0.01),
            (4, 1, 0.0),
            (-5, 1, -0.01),
            (-4, 1, 0.0),
            (10_000, 3, 3.33),
            (20_000, 3, 6.67),
            (3_325, 1, 3.33),
            (15, 3, 0.01),
        ] {
            assert_eq!(hundredths(thousandths, count), expected, "{thousandths}/{count}");
        }
    }
}
