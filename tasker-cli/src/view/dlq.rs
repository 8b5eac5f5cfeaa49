//! Dead letters, and limits on how many steps run at once.

use super::{Cell, Look, Table, Tone, one_line, plain};
use serde_json::Value;
use tasker_shared::api::{DeadLetter, DeadLetterPage, DeadLetterSummary, LimitList};

/// A page of dead letters as a table.
pub fn dead_letters(page: &DeadLetterPage, look: &Look) -> String {
    if page.dead_letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let mut table =
        Table::new(look, ["DEAD LETTER", "REASON", "STATE", "NAMESPACE", "STEP", "PARKED", "DETAIL"], &["DETAIL"]);
    for letter in &page.dead_letters {
        let (tone, state) = state(letter);
        table.row([
            Cell::toned(Tone::Strong, letter.dead_letter_id.to_string()),
            letter.reason.as_str().into(),
            Cell::toned(tone, state),
            letter.namespace.clone().unwrap_or_default().into(),
            letter.step.clone().unwrap_or_default().into(),
            look.clock.relative(letter.created_at).into(),
            one_line(&letter.detail).into(),
        ]);
    }
    let more = page.next.map(|next| format!("\nmore: --before {next}")).unwrap_or_default();
    table.draw() + &more
}

fn state(letter: &DeadLetterSummary) -> (Tone, &'static str) {
    match (letter.resolved_at, letter.resolution) {
        (None, _) => (Tone::Bad, "open"),
        (Some(_), resolution) => (Tone::Quiet, resolution.map_or("resolved", |resolution| resolution.as_str())),
    }
}

/// A dead letter: what happened, who dealt with it, its message, and what task and step were like.
pub fn dead_letter(letter: &DeadLetter, look: &Look) -> String {
    let of = &letter.summary;
    let (tone, state) = state(of);
    let mut lines = vec![
        format!("dead letter {}  {}", of.dead_letter_id, look.paint.paint(tone, state)),
        format!("reason      {}: {}", of.reason, one_line(&of.detail)),
        format!("parked      {} by {}", look.clock.moment(of.created_at), plain(&of.parked_by)),
        format!("queue       {}, read {} times", plain(&of.queue), letter.read_count),
    ];
    lines.extend(of.task_id.map(|task| format!("task        {task}")));
    lines.extend(of.step.as_ref().map(|step| format!("step        {}", plain(step))));
    if let (Some(resolution), Some(at)) = (of.resolution, of.resolved_at) {
        let by = plain(of.resolved_by.as_deref().unwrap_or("somebody"));
        let note = of.note.as_ref().map(|note| format!(": {}", one_line(note))).unwrap_or_default();
        lines.push(format!("{:<11} {} by {by}{note}", resolution.as_str(), look.clock.moment(at)));
    }
    let part = |name: &str, value: &Value| format!("\n{name}\n{}", plain(&format!("{value:#}")));
    lines.push(part("message", &letter.message));
    lines.extend(letter.headers.as_ref().map(|headers| part("headers", headers)));
    lines.extend(letter.snapshot.as_ref().map(|snapshot| part("snapshot", snapshot)));
    lines.join("\n")
}

/// Limits as a table.
pub fn limits(list: &LimitList, look: &Look) -> String {
    if list.limits.is_empty() {
        return "no limits; set one with `tasker limit set NAMESPACE MAX`".to_owned();
    }
    let mut table =
        Table::new(look, ["NAMESPACE", "SCOPE", "MAX", "USED", "WAITING", "SET BY", "REASON"], &["SCOPE", "REASON"]);
    for limit in &list.limits {
        let tone = if limit.waiting > 0 { Tone::Warn } else { Tone::Plain };
        table.row([
            Cell::toned(Tone::Strong, limit.namespace.as_str()),
            limit.scope.as_str().into(),
            limit.max.to_string().into(),
            limit.used.to_string().into(),
            Cell::toned(tone, limit.waiting.to_string()),
            limit.set_by.as_deref().unwrap_or("template").into(),
            limit.reason.clone().unwrap_or_default().into(),
        ]);
    }
    table.draw()
}
