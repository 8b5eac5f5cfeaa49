//! A whole dashboard: its sections, its variables and its links.

use crate::panel::Panel;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The columns of Grafana's grid.
const COLUMNS: u32 = 24;

/// A dashboard.
#[derive(Debug, Clone)]
pub struct Dashboard {
    uid: &'static str,
    title: &'static str,
    about: &'static str,
    variables: Vec<Value>,
    sections: Vec<(&'static str, Vec<Panel>)>,
}

impl Dashboard {
    pub(crate) fn new(uid: &'static str, title: &'static str, about: &'static str) -> Self {
        Self { uid, title, about, variables: Vec::new(), sections: Vec::new() }
    }

    /// Lets the viewer choose namespaces.
    pub(crate) fn choose_namespace(self) -> Self {
        self.variable(choice("namespace", "Namespace", "label_values(tasker_steps_ready, namespace)"))
    }

    /// Lets the viewer choose templates of the chosen namespaces.
    pub(crate) fn choose_task_type(self) -> Self {
        let query = "label_values(tasker_tasks_requests_total{namespace=~\"$namespace\"}, task_type)";
        self.variable(choice("task_type", "Task type", query))
    }

    pub(crate) fn variable(mut self, variable: Value) -> Self {
        self.variables.push(variable);
        self
    }

    pub(crate) fn section(mut self, title: &'static str, panels: Vec<Panel>) -> Self {
        self.sections.push((title, panels));
        self
    }

    /// The file below `observability/dashboards/`.
    pub fn file(&self) -> String {
        format!("{}.json", self.uid)
    }

    /// The fields of the catalogue that it shows.
    pub fn fields(&self) -> BTreeSet<&'static str> {
        let panels = self.sections.iter().flat_map(|(_, panels)| panels);
        panels.flat_map(Panel::reads).map(|spec| spec.field).collect()
    }

    /// The dashboard as Grafana reads it.
    pub fn json(&self) -> Value {
        json!({
            "uid": self.uid,
            "title": format!("Tasker / {}", self.title),
            "description": self.about,
            "tags": ["tasker"],
            "editable": false,
            "graphTooltip": 1,
            "schemaVersion": 39,
            "version": 1,
            "refresh": "30s",
            "time": { "from": "now-1h", "to": "now" },
            "timezone": "browser",
            "templating": { "list": self.variables },
            "annotations": { "list": [] },
            "links": [{
                "type": "dashboards", "title": "Tasker", "tags": ["tasker"], "asDropdown": true, "includeVars": true,
                "keepTime": true, "targetBlank": false, "icon": "external link", "tooltip": "", "url": "",
            }],
            "panels": self.panels(),
        })
    }

    /// The file's content.
    pub fn text(&self) -> String {
        format!("{:#}\n", self.json())
    }

    /// Panels in reading order, section by section.
    fn panels(&self) -> Vec<Value> {
        let (mut placed, mut y) = (Vec::new(), 0);
        for (title, panels) in &self.sections {
            placed.push(json!({
                "id": placed.len() + 1, "type": "row", "title": title, "collapsed": false, "panels": [],
                "gridPos": { "h": 1, "w": COLUMNS, "x": 0, "y": y },
            }));
            y += 1;
            for row in rows(panels) {
                let height = row.iter().map(|panel| panel.height).max().unwrap_or_default();
                let mut x = 0;
                for (place, panel) in row.iter().enumerate() {
                    // the last one takes what is left of the row
                    let width = if place + 1 == row.len() { COLUMNS - x } else { panel.width };
                    placed.push(panel.json(placed.len() + 1, (x, y), (width, height)));
                    x += width;
                }
                y += height;
            }
        }
        placed
    }
}

/// The panels that fit beside each other.
fn rows(panels: &[Panel]) -> Vec<&[Panel]> {
    let (mut rows, mut rest) = (Vec::new(), panels);
    while !rest.is_empty() {
        let mut width = 0;
        let fit = rest.iter().take_while(|panel| {
            width += panel.width;
            width <= COLUMNS
        });
        let (row, more) = rest.split_at(fit.count().max(1));
        rows.push(row);
        rest = more;
    }
    rows
}

/// A variable of which several values, or all, can be chosen.
fn choice(name: &str, label: &str, query: &str) -> Value {
    json!({
        "name": name, "label": label, "type": "query", "query": query, "definition": query,
        "datasource": { "type": "prometheus", "uid": "prometheus" },
        "multi": true, "includeAll": true, "allValue": ".*", "current": { "text": "All", "value": "$__all" },
        "refresh": 2, "sort": 1, "regex": "", "hide": 0, "options": [],
    })
}
