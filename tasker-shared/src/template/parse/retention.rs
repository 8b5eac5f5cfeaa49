//! The key `retention`.

use crate::template::{
    problem::Problems,
    read::At,
    retention::{Keep, Retention},
};
use std::time::Duration;

const KEYS: &[&str] = &["complete_after", "failed_after"];

const DAY: Duration = Duration::from_secs(86_400);

/// Who waits for a task must still find it.
const SHORTEST: Duration = Duration::from_secs(60);

/// A hundred years.
const LONGEST: Duration = Duration::from_secs(36_500 * DAY.as_secs());

pub(super) fn read(at: &At<'_>, problems: &mut Problems) -> Retention {
    let Some(fields) = at.fields(KEYS, problems) else { return Retention::default() };
    let mut keep = |key| fields.get(key).and_then(|at| keep(&at, problems));
    Retention { complete_after: keep("complete_after"), failed_after: keep("failed_after") }
}

fn keep(at: &At<'_>, problems: &mut Problems) -> Option<Keep> {
    let age = match at.word(problems)? {
        "never" => return Some(Keep::Forever),
        text => humantime::parse_duration(text).ok().filter(|age| (SHORTEST..=LONGEST).contains(age)),
    };
    if age.is_none() {
        at.expected(problems, "an age from 1m to 36500d, such as 30d or 12h, or never");
    }
    // no finer than a millisecond, which is what is stored
    age.map(|age| Keep::For(Duration::from_millis(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))))
}
