//! Which layer wins, what each mistake says, and that the committed files are complete.

use super::{keys::KEYS, *};
use std::{collections::BTreeSet, fs, path::Path, time::Duration};
use tempfile::TempDir;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/tasker");

/// A configuration directory with these files; paths as in the messages.
struct Directory(TempDir);

impl Directory {
    fn with(files: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        for (file, text) in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(dir)
    }

    fn sources(&self, environment: &str) -> Sources {
        Sources::built_in(environment).with("TASKER_CONFIG_ROOT", &self.0.path().display().to_string())
    }

    /// Loads, and gives what is wrong with paths relative to the directory.
    fn complaint(&self, sources: &Sources) -> String {
        let message = Config::load(sources).unwrap_err().to_string();
        message.replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// What is wrong with one overlay of the worker.
fn complaint(worker_toml: &str) -> String {
    let directory = Directory::with(&[("environments/test/worker.toml", worker_toml)]);
    directory.complaint(&directory.sources("test"))
}

fn variable_complaint(variable: &str, value: &str) -> String {
    Config::load(&Sources::built_in("test").with(variable, value)).unwrap_err().to_string()
}

fn setting<'a>(config: &'a Config, key: &str) -> &'a Setting {
    config.describe().iter().find(|setting| setting.key == key).unwrap()
}

#[test]
fn variables_win_over_overlays_and_overlays_over_the_default_file() {
    let overlay = "[worker]\nclaim_batch_size = 11\nreport_batch_size = 12\n";
    let directory = Directory::with(&[
        ("base.toml", "[worker]\nreport_batch_size = 9\npoll_interval_ms = 8\n"),
        ("environments/test/worker.toml", overlay),
    ]);
    let config = Config::load(&directory.sources("test").with("TASKER__WORKER__CLAIM_BATCH_SIZE", "13")).unwrap();
    assert_eq!(config.worker.claim_batch_size, 13);
    assert_eq!(config.worker.report_batch_size, 12);
    assert_eq!(config.worker.poll_interval, Duration::from_millis(8));
    assert_eq!(config.worker.max_concurrent_steps, 256);
    let root = directory.0.path().display();
    for (key, value, origin) in [
        ("worker.claim_batch_size", "13", "variable TASKER__WORKER__CLAIM_BATCH_SIZE".to_owned()),
        ("worker.report_batch_size", "12", format!("{root}/environments/test/worker.toml")),
        ("worker.poll_interval_ms", "8", format!("{root}/base.toml")),
        ("worker.max_concurrent_steps", "256", "config/tasker/base.toml".to_owned()),
    ] {
        let setting = setting(&config, key);
        assert_eq!((setting.value.as_str(), setting.origin.to_string()), (value, origin), "{key}");
    }
}

#[test]
fn the_database_url_of_the_usual_variable_wins_and_its_password_is_not_shown() {
    let sources = Sources::built_in("test")
        .with("TASKER__DATABASE__URL", "postgres://a@one/x")
        .with("DATABASE_URL", "postgres://me:secret@two/y");
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.database.url.as_deref(), Some("postgres://me:secret@two/y"));
    let shown = setting(&config, "database.url");
    assert_eq!(shown.value, "\"postgres://***@two/y\"");
    assert_eq!(shown.origin.to_string(), "variable DATABASE_URL");
    assert!(!format!("{config:?}").contains("secret"));
    assert!(Config::load(&Sources::built_in("test")).unwrap().database.url.is_none());
}

#[test]
fn variables_set_numbers_flags_lists_and_texts() {
    let sources = Sources::built_in("production")
        .with("TASKER__WORKER__NAMESPACES", "billing, shipping")
        .with("TASKER__WORKER__HTTP__ENABLED", "true")
        .with("TASKER__WORKER__HTTP__ALLOWED_HOSTS", "api.example.com")
        .with("TASKER__TELEMETRY__SAMPLE_RATE", "0.25")
        .with("TASKER__WORKER__NAME", "w1")
        .with("TASKER__WORKER__COMMAND__ALLOWED_ENVIRONMENT", "")
        .with("TASKER__TELEMETRY__OPENTELEMETRY__HEADERS", "authorization=Bearer t, x-team=a=b")
        .with("TASKERS_OTHER", "not ours");
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.worker.namespaces, ["billing", "shipping"]);
    assert!(config.worker.http.enabled);
    assert_eq!(config.worker.http.allowed_hosts, ["api.example.com"]);
    assert!((config.telemetry.sample_rate - 0.25).abs() < f64::EPSILON);
    assert_eq!(config.worker.name_or_default(), "w1");
    assert!(config.worker.command.allowed_environment.is_empty());
    assert!(!config.worker.takes_every_namespace());
    let headers: Vec<_> =
        config.telemetry.opentelemetry.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(headers, [("authorization", "Bearer t"), ("x-team", "a=b")]);
    let shown = &setting(&config, "telemetry.opentelemetry.headers").value;
    assert_eq!(shown, "{ \"authorization\" = \"***\", \"x-team\" = \"***\" }");
}

#[test]
fn a_worker_without_a_name_is_named_after_its_machine_and_process() {
    let config = Config::load(&Sources::built_in("test")).unwrap();
    let name = config.worker.name_or_default();
    assert!(name.ends_with(&format!("-{}", std::process::id())) && !name.starts_with('-'), "{name}");
}

#[test]
fn every_mistake_in_a_file_names_key_file_and_expected_value() {
    for (text, message) in [
        (
            "[worker]\npoll_interval_ms = \"fast\"",
            "worker.poll_interval_ms = \"fast\" (environments/test/worker.toml): expected a whole number from 1 to 3600000",
        ),
        (
            "[worker]\nclaim_batch_size = 0",
            "worker.claim_batch_size = 0 (environments/test/worker.toml): expected a whole number from 1 to 10000",
        ),
        (
            "[worker]\nheartbeat_interval_ms = 20000",
            "worker.heartbeat_interval_ms = 20000 (environments/test/worker.toml): expected less than half of \
             worker.lease_ms (30000)",
        ),
        (
            "[worker]\npoll_intervall_ms = 5",
            "worker.poll_intervall_ms (environments/test/worker.toml): unknown key; did you mean worker.poll_interval_ms?",
        ),
        (
            "[worker]\nresults_batch_size = 5",
            "worker.results_batch_size (environments/test/worker.toml): unknown key; did you mean \
             orchestration.results_batch_size?",
        ),
        ("[worker]\ncolour = 5", "worker.colour (environments/test/worker.toml): unknown key"),
        ("[wroker]\nname = \"x\"", "wroker (environments/test/worker.toml): unknown key; did you mean [worker]?"),
        ("worker = 3", "worker = 3 (environments/test/worker.toml): expected a section [worker]"),
        (
            "[worker.http]\nenabled = \"yes\"",
            "worker.http.enabled = \"yes\" (environments/test/worker.toml): expected true or false",
        ),
        (
            "[worker.http]\nenabled = true",
            "worker.http.enabled = true (environments/test/worker.toml): expected false, or hosts in \
             worker.http.allowed_hosts (\"*\" for all)",
        ),
        (
            "[worker.command]\nenabled = true",
            "worker.command.enabled = true (environments/test/worker.toml): expected false, or programs in \
             worker.command.allowed_programs (\"*\" for all)",
        ),
        (
            "[worker]\nnamespaces = \"one\"",
            "worker.namespaces = \"one\" (environments/test/worker.toml): expected a list of texts, such as [\"a\", \"b\"] \
             in a file or a,b in a variable",
        ),
        (
            "[worker]\nnamespaces = []",
            "worker.namespaces = [] (environments/test/worker.toml): expected at least one namespace, or \"*\" for every one",
        ),
        (
            "[worker]\nnamespaces = [\"a b\"]",
            "worker.namespaces = [\"a b\"] (environments/test/worker.toml): expected names; `a b` has the character ' ' at \
             position 1; names are made of letters, digits, `_`, `-`, `.` and `:`, and begin with a letter, a digit or `_`",
        ),
        (
            "[worker]\nhttp_address = \"localhost\"",
            "worker.http_address = \"localhost\" (environments/test/worker.toml): expected an address with a port, such as \
             \"127.0.0.1:8080\"",
        ),
        (
            "[orchestration]\nmax_input_bytes = 9000000",
            "orchestration.max_request_bytes = 4194304 (config/tasker/base.toml): expected at least \
             orchestration.max_input_bytes (9000000)",
        ),
        (
            "[telemetry]\nsample_rate = 2",
            "telemetry.sample_rate = 2 (environments/test/worker.toml): expected a number from 0.0 to 1.0",
        ),
        (
            "[telemetry.opentelemetry]\nprotocol = \"http\"",
            "telemetry.opentelemetry.protocol = \"http\" (environments/test/worker.toml): expected \"grpc\" or \
             \"http/protobuf\"",
        ),
        (
            "[telemetry.opentelemetry]\nendpoint = \"collector:4317\"",
            "telemetry.opentelemetry.endpoint = \"collector:4317\" (environments/test/worker.toml): expected a URL that \
             starts with http:// or https://",
        ),
        (
            "[telemetry.metrics]\nprobe_interval_ms = 50",
            "telemetry.metrics.probe_interval_ms = 50 (environments/test/worker.toml): expected a whole number from 100 to \
             3600000",
        ),
        (
            "[telemetry.logs]\nlevel = \"\"",
            "telemetry.logs.level = \"\" (environments/test/worker.toml): expected a text that is not empty",
        ),
        (
            "[telemetry.opentelemetry]\nheaders = \"secret\"",
            "telemetry.opentelemetry.headers = <not shown> (environments/test/worker.toml): expected names with texts, such \
             as { a = \"x\" } in a file or a=x,b=y in a variable",
        ),
        (
            "[database]\nurl = \"mysql://me:secret@host/db\"",
            "database.url = <not shown> (environments/test/worker.toml): expected a URL that starts with postgres:// or \
             postgresql://",
        ),
    ] {
        assert_eq!(complaint(text), message);
    }
}

#[test]
fn every_mistake_in_a_variable_names_the_variable() {
    for (variable, value, message) in [
        (
            "TASKER__WORKER__LEASE_MS",
            "30s",
            "worker.lease_ms = \"30s\" (variable TASKER__WORKER__LEASE_MS): expected a whole number from 100 to 86400000",
        ),
        (
            "TASKER__WORKER__LEASE",
            "30",
            "worker.lease (variable TASKER__WORKER__LEASE): unknown key; did you mean worker.lease_ms?",
        ),
        (
            "TASKER__WORKER__LEASE_MS",
            "20000",
            "worker.heartbeat_interval_ms = 10000 (config/tasker/base.toml): expected less than half of worker.lease_ms \
             (20000)",
        ),
        (
            "DATABASE_URL",
            "me:secret@host",
            "database.url = <not shown> (variable DATABASE_URL): expected a URL that starts with postgres:// or postgresql://",
        ),
        (
            "TASKER_ENV",
            "staging",
            "TASKER_ENV = \"staging\": expected one of development, test, production; for one of your own make \
             environments/staging in the directory TASKER_CONFIG_ROOT",
        ),
    ] {
        assert_eq!(variable_complaint(variable, value), message);
    }
}

#[test]
fn secrets_in_urls_are_neither_described_nor_shown_for_debugging() {
    let config = Config::load(
        &Sources::built_in("test")
            .with("DATABASE_URL", "postgres://me:paSECRET/ss@host/db")
            .with("TASKER__AUTH__JWT__JWKS_URL", "https://SECRET@id/jwks?auth_token=SECRET")
            .with("TASKER__AUTH__JWT__ISSUER", "i")
            .with("TASKER__AUTH__JWT__AUDIENCE", "a")
            .with("TASKER__TELEMETRY__GRAFANA_URL", "https://u:SECRET@grafana/?token=SECRET&orgId=1")
            .with("TASKER__TELEMETRY__OPENTELEMETRY__ENDPOINT", "https://SECRET@otlp/?api-key=SECRET")
            .with("TASKER__TELEMETRY__OPENTELEMETRY__HEADERS", "authorization=SECRET"),
    )
    .unwrap();
    for (key, value) in [
        ("database.url", "\"postgres://***\""),
        ("auth.jwt.jwks_url", "\"https://***@id/jwks?auth_token=***\""),
        ("telemetry.grafana_url", "\"https://***@grafana/?token=***&orgId=1\""),
        ("telemetry.opentelemetry.endpoint", "\"https://***@otlp/?api-key=***\""),
    ] {
        assert_eq!(setting(&config, key).value, value);
    }
    let (database, auth, otlp) = (&config.database, &config.auth, &config.telemetry.opentelemetry);
    for shown in [format!("{config:?}"), format!("{database:?}"), format!("{auth:?}"), format!("{otlp:?}")] {
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}

#[test]
fn a_value_that_is_refused_is_not_shown_where_it_may_be_a_secret() {
    for (text, message) in [
        ("database = \"postgres://me:SECRET@h/d\"", "database = <not shown> ("),
        ("telemetry = [\"SECRET\"]", "telemetry = <not shown> ("),
        ("[telemetry]\nopentelemetry = \"SECRET\"", "telemetry.opentelemetry = <not shown> ("),
        ("[telemetry]\ngrafana_url = \"ftp://u:SECRET@h\"", "telemetry.grafana_url = \"ftp://***@h\" ("),
        ("[telemetry]\ngrafana_url = {url = \"SECRET\"}", "telemetry.grafana_url = <not shown> ("),
        ("[telemetry.opentelemetry]\nendpoint = \"SECRET@h\"", "telemetry.opentelemetry.endpoint = \"***\" ("),
        ("[auth.jwt]\njwks_url = \"http://SECRET@h/?k=SECRET\"", "auth.jwt.jwks_url = \"http://***@h/?k=***\" ("),
    ] {
        let told = complaint(text);
        assert!(told.contains(message) && !told.contains("SECRET"), "{told}");
    }
    for (variable, value) in [
        ("TASKER__TELEMETRY__OPENTELEMETRY__ENDPOINT", "u:SECRET@h"),
        ("TASKER__TELEMETRY__OPENTELEMETRY__HEADERS", "SECRETnoeq"),
    ] {
        let told = variable_complaint(variable, value);
        assert!(told.contains(variable) && !told.contains("SECRET"), "{told}");
    }
}

#[test]
fn a_file_that_is_not_toml_is_named_with_its_line() {
    let message = complaint("[worker]\nname = \n");
    assert!(message.starts_with("environments/test/worker.toml, line 2: "), "{message}");
}

#[test]
fn files_and_directories_that_do_not_fit_are_named() {
    let directory = Directory::with(&[("environments/test/wroker.toml", "")]);
    assert_eq!(
        directory.complaint(&directory.sources("test")),
        "environments/test/wroker.toml: unknown file; expected tasker.toml, telemetry.toml, orchestration.toml or worker.toml"
    );
    assert_eq!(
        directory.complaint(&directory.sources("production")),
        "TASKER_ENV = \"production\": expected one of test; for one of your own make environments/production"
    );
    assert_eq!(
        variable_complaint("TASKER_CONFIG_ROOT", "/absent"),
        "/absent: expected a directory with base.toml or environments/ in it (TASKER_CONFIG_ROOT)"
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let directory = Directory::with(&[
        ("base.toml", "[database]\nmax_connections = -1\n"),
        ("environments/test/worker.toml", "[worker]\nlease_ms = true\n"),
    ]);
    let message = directory.complaint(&directory.sources("test").with("TASKER__NO__SUCH", "1"));
    assert_eq!(
        message,
        "database.max_connections = -1 (base.toml): expected a whole number from 1 to 10000\n\
         worker.lease_ms = true (environments/test/worker.toml): expected a whole number from 100 to 86400000\n\
         no.such (variable TASKER__NO__SUCH): unknown key"
    );
}

#[test]
fn the_committed_default_file_has_every_key_and_no_other() {
    let text = fs::read_to_string(Path::new(COMMITTED).join("base.toml")).unwrap();
    let mut problems = Vec::new();
    let base = layer::from_toml(&text, "base.toml", &mut problems);
    assert_eq!(problems, []);
    let written: BTreeSet<&str> = base.keys().copied().collect();
    assert_eq!(written, KEYS.iter().map(|key| key.name).collect());
    // The sections have no defaults of their own and refuse what they do not know, so they have the same keys.
    let merged = ::config::Config::builder().add_source(Checked(base)).build().unwrap();
    let sections: Sections = merged.try_deserialize().unwrap();
    assert_eq!(sections.telemetry, telemetry::Settings::default());
}

#[test]
fn the_committed_files_load_and_are_the_built_in_ones() {
    let environments = fs::read_dir(Path::new(COMMITTED).join("environments")).unwrap();
    let mut names: Vec<_> = environments.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["development", "production", "test"]);
    for name in names {
        let built_in = Config::load(&Sources::built_in(&name)).unwrap();
        let committed = Config::load(&Sources::built_in(&name).with("TASKER_CONFIG_ROOT", COMMITTED)).unwrap();
        let values = |config: &Config| config.describe().iter().map(|s| (s.key, s.value.clone())).collect::<Vec<_>>();
        assert_eq!(values(&built_in), values(&committed), "{name}");
        assert_eq!(built_in.environment, name);
    }
}

#[test]
fn development_is_the_default_environment_with_the_built_in_handlers_on() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config.environment, "development");
    assert!(config.worker.http.enabled && config.worker.command.enabled);
    assert!(config.telemetry.enabled && config.telemetry.opentelemetry.enabled);
    assert_eq!(config.telemetry.service_name.as_deref(), Some("tasker-core-dev"));
}

#[test]
fn production_has_the_built_in_handlers_off_until_something_is_allowed() {
    let worker = Config::load(&Sources::built_in("production")).unwrap().worker;
    assert!(!worker.http.enabled && worker.http.allowed_hosts.is_empty());
    assert!(!worker.command.enabled && worker.command.allowed_programs.is_empty());
    assert!(worker.command.allowed_step_environment.is_empty());
}
