//! API keys and the audit.

use super::{Cell, Look, Table, Tone, one_line};
use tasker_shared::api::{AuditOutcome, AuditPage, KeyList};

/// The keys as a table.
pub fn keys(list: &KeyList, look: &Look) -> String {
    if list.keys.is_empty() {
        return "no API keys; make one with `tasker key create`".to_owned();
    }
    let header = ["PREFIX", "NAME", "STATE", "PERMISSIONS", "NAMESPACES", "EXPIRES", "USED", "MADE BY"];
    let mut table = Table::new(look, header, &["PERMISSIONS", "NAMESPACES"]);
    for key in &list.keys {
        let (tone, state) = match (key.active, key.revoked_at) {
            (true, _) => (Tone::Good, "active"),
            (false, Some(_)) => (Tone::Bad, "revoked"),
            (false, None) => (Tone::Warn, "expired"),
        };
        table.row([
            key.prefix.as_str().into(),
            Cell::toned(Tone::Strong, one_line(&key.name)),
            Cell::toned(tone, state),
            key.permissions.join(" ").into(),
            key.namespaces.join(" ").into(),
            key.expires_at.map_or_else(|| "never".to_owned(), |at| look.clock.moment(at)).into(),
            key.last_used_at.map_or_else(|| "never".to_owned(), |at| look.clock.relative(at)).into(),
            one_line(&key.created_by).into(),
        ]);
    }
    table.draw()
}

/// A page of the audit as a table.
pub fn audit(page: &AuditPage, look: &Look) -> String {
    if page.entries.is_empty() {
        return "nothing in the audit fits".to_owned();
    }
    let header = ["TIME", "WHO", "FROM", "ACTION", "TARGET", "OUTCOME", "REASON"];
    let mut table = Table::new(look, header, &["TARGET", "REASON"]);
    for entry in &page.entries {
        let tone = match entry.outcome {
            AuditOutcome::Done => Tone::Good,
            AuditOutcome::Refused => Tone::Warn,
            AuditOutcome::Failed => Tone::Bad,
        };
        table.row([
            look.clock.moment(entry.at).into(),
            Cell::toned(Tone::Strong, one_line(&entry.principal)),
            entry.address.as_deref().unwrap_or_default().into(),
            entry.action.as_str().into(),
            one_line(&entry.target).into(),
            Cell::toned(tone, entry.outcome.as_str()),
            one_line(entry.reason.as_deref().unwrap_or_default()).into(),
        ]);
    }
    let more = page.next.map(|id| format!("\n\nmore: --before {id}")).unwrap_or_default();
    format!("{}{more}", table.draw())
}
