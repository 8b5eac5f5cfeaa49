//! The compose file, the image and the provisioning fit what they start: files exist, settings are known, health checks ask
//! what answers, data sources are those of the dashboards. Docker itself is not needed.

use saphyr_parser::{Event, Parser};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};
use tasker_shared::config::{Config, Sources};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A file of YAML whose values are texts, lists and mappings; aliases and merged mappings are resolved.
fn yaml(file: &str) -> Value {
    let text = read(file);
    let mut reader = Reader::default();
    for event in Parser::new_from_str(&text) {
        reader.event(event.unwrap_or_else(|error| panic!("{file}: {error}")).0);
    }
    reader.root.unwrap_or_else(|| panic!("{file} is empty"))
}

#[derive(Default)]
struct Reader {
    open: Vec<(usize, Value, Option<String>)>,
    anchors: HashMap<usize, Value>,
    root: Option<Value>,
}

impl Reader {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::SequenceStart(anchor, _) => self.open.push((anchor, Value::Array(Vec::new()), None)),
            Event::MappingStart(anchor, _) => self.open.push((anchor, Value::Object(Map::new()), None)),
            Event::SequenceEnd | Event::MappingEnd => {
                let (anchor, value, _) = self.open.pop().expect("what ends was open");
                self.put(anchor, value);
            }
            Event::Scalar(text, _, anchor, _) => self.put(anchor, Value::from(text.into_owned())),
            Event::Alias(anchor) => self.put(0, self.anchors[&anchor].clone()),
            _ => {}
        }
    }

    fn put(&mut self, anchor: usize, value: Value) {
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some((_, Value::Object(map), key)) => match (key.take(), value) {
                (None, value) => *key = value.as_str().map(str::to_owned),
                (Some(merge), Value::Object(merged)) if merge == "<<" => map.extend(merged),
                (Some(name), value) => drop(map.insert(name, value)),
            },
            Some((_, list, _)) => list.as_array_mut().expect("a list").push(value),
        }
    }
}

/// The services of the compose file that run Tasker's image.
fn services(compose: &Value) -> Vec<(&String, &Value)> {
    let services = compose["services"].as_object().expect("services").iter();
    services.filter(|(_, service)| service["image"] == "tasker").collect()
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn every_file_that_the_compose_file_mounts_exists() {
    let compose = yaml("observability/compose.yaml");
    let mut found = 0;
    for (name, service) in compose["services"].as_object().expect("services") {
        let sources = words(&service["volumes"]).into_iter().filter_map(|volume| volume.split(':').next());
        for source in sources.filter(|source| source.starts_with('.')) {
            assert!(root().join("observability").join(source).exists(), "{name} mounts {source}");
            found += 1;
        }
        if let Some(context) = service["build"]["context"].as_str() {
            assert!(root().join("observability").join(context).join("Dockerfile").exists(), "{name} builds {context}");
        }
    }
    assert!(found > 5, "{found} mounts");
}

#[test]
fn the_services_of_the_compose_file_accept_their_settings_and_run_what_the_image_has() {
    let (compose, image) = (yaml("observability/compose.yaml"), read("Dockerfile"));
    let services = services(&compose);
    assert_eq!(services.len(), 4, "{services:?}");
    for (name, service) in services {
        // the environment that the image sets
        let mut sources = Sources::built_in("production");
        for (variable, value) in service["environment"].as_object().expect("an environment") {
            // TASKER_URL is the command's, OTEL_* are standard
            if variable == "DATABASE_URL" || variable.starts_with("TASKER__") {
                sources = sources.with(variable, value.as_str().expect("a text"));
            }
        }
        let config = Config::load(&sources).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(config.telemetry.enabled, "{name}");
        let program = words(&service["command"])[0].to_owned();
        assert!(image.contains(&format!("target/dist/{program}")), "{name} runs {program}, which the image lacks");
    }
    assert!(image.contains("ENV TASKER_ENV=production") && image.contains(":nonroot"), "{image}");
}

#[test]
fn health_checks_ask_where_the_services_listen() {
    let compose = yaml("observability/compose.yaml");
    let config = Config::load(&Sources::built_in("production").with("DATABASE_URL", "postgres://localhost/tasker"));
    let config = config.expect("the configuration of the image");
    for (service, address) in
        [("orchestration", config.orchestration.http_address), ("worker", config.worker.http_address)]
    {
        let asked = words(&compose["services"][service]["healthcheck"]["test"]).join(" ");
        let port = address.to_string().rsplit(':').next().expect("a port").to_owned();
        assert!(asked.ends_with(&format!("tasker health --url http://127.0.0.1:{port}")), "{service}: {asked}");
        let published = words(&compose["services"][service]["ports"]);
        assert_eq!(published, [format!("127.0.0.1:{port}:{port}")], "{service}");
    }
}

#[test]
fn data_sources_are_those_of_the_dashboards_and_link_to_each_other() {
    let provisioned = yaml("observability/compose/datasources.yaml");
    let sources = provisioned["datasources"].as_array().expect("data sources");
    let uids: BTreeSet<&str> = sources.iter().filter_map(|source| source["uid"].as_str()).collect();
    for dashboard in tasker_observability::dashboards() {
        for panel in dashboard.json()["panels"].as_array().into_iter().flatten().filter(|panel| panel["type"] != "row")
        {
            let uid = panel["datasource"]["uid"].as_str().expect("a data source");
            assert!(uids.contains(uid), "{}: {uid} is not provisioned", panel["title"]);
        }
    }
    let of = |uid: &str| &sources.iter().find(|source| source["uid"] == uid).expect("the source")["jsonData"];
    assert_eq!(of("prometheus")["exemplarTraceIdDestinations"][0]["datasourceUid"], "tempo", "exemplar to trace");
    assert_eq!(of("tempo")["tracesToLogsV2"]["datasourceUid"], "loki", "span to logs");
    assert_eq!(of("loki")["derivedFields"][0]["datasourceUid"], "tempo", "log line to trace");
    assert!(yaml("observability/compose/dashboards.yaml")["providers"].is_array());
}
