//! Times as people read them: relative, and by the wall clock.

use chrono::{DateTime, FixedOffset, Local, TimeDelta, Utc};

/// The time now, and the time zone of the reader.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The time now.
    pub now: fn() -> DateTime<Utc>,
    /// A time where the reader is.
    pub local: fn(DateTime<Utc>) -> DateTime<FixedOffset>,
}

impl Clock {
    /// The clock and zone of this machine.
    pub fn of_machine() -> Self {
        Self { now: machine_now, local: |at| at.with_timezone(&Local).fixed_offset() }
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        (self.now)()
    }

    /// Such as `12s ago (14:03:22)`, `in 5m 0s (14:08:22)`; with the date when that is another day.
    pub fn moment(&self, at: DateTime<Utc>) -> String {
        format!("{} ({})", self.relative(at), self.wall(at))
    }

    /// Such as `12s ago`, `in 5m 0s`, `now`.
    pub fn relative(&self, at: DateTime<Utc>) -> String {
        let past = self.now() - at;
        match past.num_seconds() {
            0 => "now".to_owned(),
            seconds if seconds > 0 => format!("{} ago", coarse(seconds)),
            seconds => format!("in {}", coarse(-seconds)),
        }
    }

    /// The wall clock, such as `14:03:22`; with the date when that is another day.
    pub fn wall(&self, at: DateTime<Utc>) -> String {
        let (then, now) = ((self.local)(at), (self.local)(self.now()));
        let format = if then.date_naive() == now.date_naive() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        then.format(format).to_string()
    }

    /// The wall clock with milliseconds, such as `14:03:22.120`.
    pub fn precise(&self, at: DateTime<Utc>) -> String {
        (self.local)(at).format("%H:%M:%S%.3f").to_string()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "shown to a person, or added to a delay that a person gave; never compared"
)]
fn machine_now() -> DateTime<Utc> {
    Utc::now()
}

/// A length of time: `0.4ms`, `12ms`, `1.2s`, `3m 12s`, `2h 5m`, `3d 4h`. Below zero is zero: clocks of two machines differ.
pub fn duration(length: TimeDelta) -> String {
    let micros = length.num_microseconds().unwrap_or(i64::MAX).max(0);
    match micros {
        0..1_000 => format!("0.{}ms", micros / 100),
        1_000..1_000_000 => format!("{}ms", micros / 1_000),
        1_000_000..60_000_000 => format!("{}.{}s", micros / 1_000_000, micros / 100_000 % 10),
        _ => coarse(micros / 1_000_000),
    }
}

fn coarse(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;
    use crate::view::fixed::{at, clock};
    use chrono::TimeDelta;

    #[test]
    fn lengths_have_two_units_at_most() {
        let cases = [
            (-5, "0.0ms"),
            (430, "0.4ms"),
            (12_900, "12ms"),
            (1_260_000, "1.2s"),
            (192_000_000, "3m 12s"),
            (7_500_000_000, "2h 5m"),
            (273_600_000_000, "3d 4h"),
        ];
        for (micros, text) in cases {
            assert_eq!(duration(TimeDelta::microseconds(micros)), text);
        }
    }

    #[test]
    fn moments_are_relative_and_by_the_wall_clock() {
        assert_eq!(clock().moment(at(48)), "12s ago (12:00:48)");
        assert_eq!(clock().moment(at(360)), "in 5m 0s (12:06:00)");
        assert_eq!(clock().moment(at(60)), "now (12:01:00)");
        assert_eq!(clock().moment(at(-86_400)), "1d 0h ago (2026-02-28 12:00:00)");
    }
}
