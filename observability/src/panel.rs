//! One panel: what it shows, in which form, and what its colours mean.

use crate::promql::{Query, in_prometheus};
use serde_json::{Value, json};
use tasker_shared::metrics::{Spec, spec::CORRELATION_ID};

pub(crate) const GREEN: &str = "green";
pub(crate) const YELLOW: &str = "yellow";
pub(crate) const RED: &str = "red";
const BLUE: &str = "blue";

/// A panel of a dashboard.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    form: Form,
    title: &'static str,
    about: &'static str,
    targets: Vec<Target>,
    unit: Option<&'static str>,
    steps: Vec<(Option<f64>, &'static str)>,
    words: Vec<(i64, &'static str, &'static str)>,
    most: Option<f64>,
    nothing: &'static str,
    lines: &'static str,
    number: &'static str,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Lines,
    Stacked,
    Stat,
    Gauge,
    Pie,
    Timeline,
    Table,
    Trace,
    Logs,
}

#[derive(Debug, Clone)]
struct Target {
    legend: String,
    query: Query,
}

fn panel(form: Form, title: &'static str, about: &'static str) -> Panel {
    let (width, height) = match form {
        Form::Stat => (6, 4),
        Form::Trace => (24, 16),
        Form::Logs | Form::Table => (24, 10),
        _ => (12, 8),
    };
    let (unit, most, nothing, lines) = (None, None, "no data", "");
    Panel {
        form,
        title,
        about,
        targets: vec![],
        unit,
        steps: vec![],
        words: vec![],
        most,
        nothing,
        lines,
        number: "count",
        width,
        height,
    }
}

/// Lines over time.
pub(crate) fn lines(title: &'static str, about: &'static str) -> Panel {
    panel(Form::Lines, title, about)
}

/// Areas on top of each other.
pub(crate) fn stacked(title: &'static str, about: &'static str) -> Panel {
    panel(Form::Stacked, title, about)
}

/// One number.
pub(crate) fn stat(title: &'static str, about: &'static str) -> Panel {
    panel(Form::Stat, title, about)
}

/// One number between its bounds.
pub(crate) fn gauge(title: &'static str, about: &'static str) -> Panel {
    panel(Form::Gauge, title, about)
}

/// Shares of a whole.
pub(crate) fn pie(title: &'static str, about: &'static str) -> Panel {
    panel(Form::Pie, title, about)
}

/// States over time.
pub(crate) fn timeline(title: &'static str, about: &'static str) -> Panel {
    panel(Form::Timeline, title, about)
}

/// Rows, one for each series.
pub(crate) fn table(title: &'static str, about: &'static str) -> Panel {
    panel(Form::Table, title, about)
}

/// The trace of the task, from Tempo.
pub(crate) fn trace(title: &'static str, about: &'static str) -> Panel {
    panel(Form::Trace, title, about)
}

/// Log lines, from Loki.
pub(crate) fn logs(title: &'static str, about: &'static str, lines: &'static str) -> Panel {
    Panel { lines, ..panel(Form::Logs, title, about) }
}

impl Panel {
    /// Shows a query; its series are called after their labels.
    pub(crate) fn show(self, query: impl Into<Query>) -> Self {
        let query = query.into();
        self.named(legend(&query.by), query)
    }

    /// Shows a query whose series are called `name`, followed by their labels.
    pub(crate) fn show_as(self, name: &str, query: impl Into<Query>) -> Self {
        let query = query.into();
        self.named(format!("{name} {}", legend(&query.by)).trim_end().to_owned(), query)
    }

    fn named(mut self, legend: String, query: Query) -> Self {
        self.targets.push(Target { legend, query });
        self
    }

    /// In this unit instead of the one of the catalogue.
    pub(crate) fn unit(mut self, unit: &'static str) -> Self {
        self.unit = Some(unit);
        self
    }

    /// In percent, of 100.
    pub(crate) fn percent(mut self) -> Self {
        self.most = Some(1.0);
        self.unit("percentunit")
    }

    /// With 100 as the end of the scale.
    pub(crate) fn of_100(mut self) -> Self {
        self.most = Some(100.0);
        self
    }

    /// Red below `red`, yellow below `green`, green from there.
    pub(crate) fn good_above(mut self, red: f64, green: f64) -> Self {
        self.steps = vec![(None, RED), (Some(red), YELLOW), (Some(green), GREEN)];
        self
    }

    /// Green, yellow from `yellow`, red from `red`.
    pub(crate) fn bad_above(mut self, yellow: f64, red: f64) -> Self {
        self.steps = vec![(None, GREEN), (Some(yellow), YELLOW), (Some(red), RED)];
        self
    }

    /// Words and colours for numbers.
    pub(crate) fn words(mut self, words: &[(i64, &'static str, &'static str)]) -> Self {
        self.words = words.to_vec();
        self
    }

    /// What is said where there is nothing to show: that is good news where the panel is about accidents.
    pub(crate) fn or(mut self, nothing: &'static str) -> Self {
        self.nothing = nothing;
        self
    }

    /// What the number in a row of a table is.
    pub(crate) fn number(mut self, number: &'static str) -> Self {
        self.number = number;
        self
    }

    /// In columns of 24.
    pub(crate) fn width(mut self, width: u32) -> Self {
        self.width = width;
        self
    }

    pub(crate) fn reads(&self) -> impl Iterator<Item = &'static Spec> + '_ {
        self.targets.iter().flat_map(|target| target.query.reads.iter().copied())
    }

    /// The panel as Grafana stores it.
    pub(crate) fn json(&self, id: usize, (x, y): (u32, u32), (width, height): (u32, u32)) -> Value {
        let mut panel = json!({
            "id": id,
            "type": self.kind(),
            "title": self.title,
            "description": self.description(),
            "datasource": self.source(),
            "gridPos": { "h": height, "w": width, "x": x, "y": y },
            "options": self.options(),
            "targets": self.json_targets(),
        });
        if !matches!(self.form, Form::Trace | Form::Logs) {
            panel["fieldConfig"] = json!({ "defaults": self.defaults(), "overrides": self.overrides() });
        }
        if self.form == Form::Table {
            panel["transformations"] = transformations(&self.targets[0].query.by, self.number);
        }
        panel
    }

    fn kind(&self) -> &'static str {
        match self.form {
            Form::Lines | Form::Stacked => "timeseries",
            Form::Stat => "stat",
            Form::Gauge => "gauge",
            Form::Pie => "piechart",
            Form::Timeline => "state-timeline",
            Form::Table => "table",
            Form::Trace => "traces",
            Form::Logs => "logs",
        }
    }

    /// What the panel is for, and what the catalogue says of its metrics.
    fn description(&self) -> String {
        let mut text = self.about.to_owned();
        let mut said: Vec<&str> = Vec::new();
        for spec in self.reads() {
            if !said.contains(&spec.name) {
                let head = if said.is_empty() { "\n\n" } else { "\n" };
                text.push_str(&format!("{head}- `{}`: {}", spec.name, spec.help));
                said.push(spec.name);
            }
        }
        if self.targets.iter().any(|target| target.query.of_tasks) {
            text.push_str("\n\nWhere metrics are sent with correlation ids, it reads a little high: PromQL continues series that ended.");
        }
        text
    }

    fn source(&self) -> Value {
        let kind = match self.form {
            Form::Trace => "tempo",
            Form::Logs => "loki",
            _ => "prometheus",
        };
        json!({ "type": kind, "uid": kind })
    }

    fn json_targets(&self) -> Vec<Value> {
        match self.form {
            Form::Trace => vec![json!({
                "refId": "A", "datasource": self.source(), "queryType": "traceql", "query": "${trace_id}",
                "tableType": "traces", "limit": 20,
            })],
            Form::Logs => vec![json!({
                "refId": "A", "datasource": self.source(), "queryType": "range",
                "expr": self.lines,
            })],
            _ => self.targets.iter().zip('A'..).map(|(target, id)| self.json_target(target, id)).collect(),
        }
    }

    fn json_target(&self, target: &Target, id: char) -> Value {
        let instant = !matches!(self.form, Form::Lines | Form::Stacked | Form::Timeline);
        let mut json = json!({
            "refId": id.to_string(), "datasource": self.source(), "expr": target.query.text, "editorMode": "code",
            "range": !instant, "instant": instant, "legendFormat": target.legend,
        });
        if self.form == Form::Table {
            json["format"] = "table".into();
        }
        if target.query.exemplars && !instant {
            json["exemplar"] = true.into();
        }
        json
    }

    fn defaults(&self) -> Value {
        let first = self.targets.first().map(|target| target.query.unit.as_str()).unwrap_or_default();
        let mut defaults = json!({
            "unit": self.unit.unwrap_or(first),
            "color": { "mode": if self.by_threshold() { "thresholds" } else { "palette-classic" } },
            "mappings": self.mappings(),
            "thresholds": { "mode": "absolute", "steps": self.json_steps() },
            "noValue": self.nothing,
        });
        if self.form != Form::Table {
            defaults["min"] = 0.into();
        }
        if !self.targets.is_empty() && self.targets.iter().all(|target| target.query.whole) {
            defaults["decimals"] = 0.into();
        }
        if let Some(most) = self.most {
            defaults["max"] = most.into();
        }
        match self.form {
            Form::Lines | Form::Stacked => defaults["custom"] = self.drawn(),
            Form::Timeline => defaults["custom"] = json!({ "fillOpacity": 80, "lineWidth": 0 }),
            _ => {}
        }
        defaults
    }

    fn by_threshold(&self) -> bool {
        matches!(self.form, Form::Stat | Form::Gauge | Form::Timeline)
    }

    fn drawn(&self) -> Value {
        let stacked = self.form == Form::Stacked;
        json!({
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": if stacked { 40 } else { 8 }, "showPoints": "auto",
            "pointSize": 4, "spanNulls": 300_000,
            "stacking": { "group": "A", "mode": if stacked { "normal" } else { "none" } },
            "thresholdsStyle": { "mode": if self.steps.is_empty() { "off" } else { "dashed" } },
        })
    }

    fn json_steps(&self) -> Vec<Value> {
        let usual = [(None, if self.by_threshold() { BLUE } else { GREEN })];
        let steps = if self.steps.is_empty() { &usual[..] } else { &self.steps };
        steps.iter().map(|(from, color)| json!({ "value": from, "color": color })).collect()
    }

    fn mappings(&self) -> Vec<Value> {
        if self.words.is_empty() {
            return Vec::new();
        }
        let word = |(index, (value, text, color)): (usize, &(i64, &str, &str))| {
            (value.to_string(), json!({ "text": text, "color": color, "index": index }))
        };
        let options: serde_json::Map<_, _> = self.words.iter().enumerate().map(word).collect();
        vec![json!({ "type": "value", "options": options })]
    }

    fn overrides(&self) -> Vec<Value> {
        if self.form != Form::Table {
            return Vec::new();
        }
        vec![json!({
            "matcher": { "id": "byName", "options": "correlation_id" },
            "properties": [{ "id": "links", "value": [{
                "title": "Show this task",
                "url": "/d/tasker-task?var-correlation_id=${__value.raw}&${__url_time_range}",
            }]}],
        })]
    }

    fn options(&self) -> Value {
        let reduce = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
        match self.form {
            Form::Lines | Form::Stacked => json!({
                "legend": { "displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": ["lastNotNull", "max"] },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Form::Stat => json!({
                "reduceOptions": reduce, "colorMode": "value", "graphMode": "none", "textMode": "auto",
                "justifyMode": "auto", "orientation": "auto",
            }),
            Form::Gauge => {
                json!({ "reduceOptions": reduce, "showThresholdMarkers": true, "showThresholdLabels": false })
            }
            Form::Pie => json!({
                "reduceOptions": reduce, "pieType": "donut", "displayLabels": ["percent"],
                "legend": { "displayMode": "table", "placement": "right", "showLegend": true, "values": ["value"] },
            }),
            Form::Timeline => {
                json!({ "mergeValues": true, "showValue": "auto", "rowHeight": 0.8, "legend": { "showLegend": false } })
            }
            // ids made later sort later: the newest first
            Form::Table => {
                let by = self.targets.first().and_then(|target| target.query.by.first()).copied().unwrap_or("Value");
                let newest = by == CORRELATION_ID;
                json!({ "showHeader": true, "cellHeight": "sm", "sortBy": [{ "displayName": by, "desc": newest }] })
            }
            Form::Trace => json!({}),
            Form::Logs => {
                json!({ "showTime": true, "wrapLogMessage": true, "sortOrder": "Ascending", "enableLogDetails": true, "dedupStrategy": "none" })
            }
        }
    }
}

/// What a series is called after its labels: a process as a worker is, a change by both of its ends.
fn legend(by: &[&str]) -> String {
    let labels: Vec<String> = by.iter().map(|label| format!("{{{{{}}}}}", in_prometheus(label))).collect();
    labels.join(" ").replace("{{host_name}} {{", "{{host_name}}-{{").replace("{{from}} {{to}}", "{{from}} → {{to}}")
}

/// Leaves the columns of the labels and the number.
fn transformations(by: &[&'static str], number: &str) -> Value {
    let columns: serde_json::Map<_, _> =
        by.iter().copied().chain(["Value"]).enumerate().map(|(at, name)| (name.to_owned(), at.into())).collect();
    json!([{ "id": "organize", "options": { "excludeByName": { "Time": true }, "indexByName": columns, "renameByName": { "Value": number } } }])
}
