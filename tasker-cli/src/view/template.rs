//! Registered templates.

use super::{Cell, Look, Table, Tone, one_line, plain};
use tasker_shared::api::{TemplateDetail, TemplateList, TemplateSummary};

/// The templates as a table.
pub fn templates(list: &TemplateList, look: &Look) -> String {
    if list.templates.is_empty() {
        return "no templates; register some with `tasker template apply PATH`".to_owned();
    }
    let mut table = Table::new(look, ["TEMPLATE", "VERSION", "STEPS", "REGISTERED", "DESCRIPTION"], &["DESCRIPTION"]);
    for template in &list.templates {
        let description = one_line(template.description.as_deref().unwrap_or_default());
        table.row([
            Cell::toned(Tone::Strong, format!("{}/{}", template.namespace, template.name)),
            template.version.as_str().into(),
            template.steps.to_string().into(),
            look.clock.moment(template.created_at).into(),
            super::fit(&description, 60).into(),
        ]);
    }
    table.draw()
}

/// A template with the text that it was registered with.
pub fn template(template: &TemplateDetail, look: &Look) -> String {
    let summary = &template.summary;
    let head = [
        ("template", name(summary)),
        ("id", summary.template_id.to_string()),
        ("steps", summary.steps.to_string()),
        ("identity", summary.identity_strategy.to_string()),
        ("checksum", summary.checksum.clone()),
        ("registered", look.clock.moment(summary.created_at)),
    ];
    let line =
        |(name, value): &(&str, String)| format!("{}{value}\n", look.paint.paint(Tone::Quiet, &format!("{name:<13}")));
    format!("{}\n{}", head.iter().map(line).collect::<String>(), plain(&template.source))
}

/// `namespace/name@version`.
pub fn name(template: &TemplateSummary) -> String {
    format!("{}/{}@{}", template.namespace, template.name, template.version)
}
