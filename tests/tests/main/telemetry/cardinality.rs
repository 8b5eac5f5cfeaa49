//! The bounds that the cardinality contract takes for what the code names hold for this code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use tasker_shared::metrics::{CATALOG, cardinality, cardinality::Deployment};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// How many label sets a metric may have where nothing is deployed.
fn most(field: &str) -> usize {
    let spec = CATALOG.iter().find(|spec| spec.field == field).expect("a metric of the catalogue");
    cardinality::most_sets(spec, &Deployment::default())
}

/// The text of all files with this ending below a directory.
fn texts(directory: &Path, ending: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            texts(&entry, ending, found);
        } else if entry.extension().is_some_and(|extension| extension == ending) {
            found.push(fs::read_to_string(&entry).expect("a file"));
        }
    }
}

/// The words that stand behind a beginning.
fn words_after<'a>(texts: &'a [String], beginnings: &[&str]) -> BTreeSet<&'a str> {
    let of = |text: &'a str, beginning: &str| {
        let rest = text.split(beginning).skip(1).collect::<Vec<_>>();
        rest.into_iter().map(|rest| &rest[..rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(0)])
    };
    let found = texts.iter().flat_map(|text| beginnings.iter().flat_map(|beginning| of(text, beginning)));
    found.filter(|word| !word.is_empty()).collect()
}

#[test]
fn the_contract_has_room_for_every_statement_transaction_table_and_route() {
    let (mut sources, mut migrations) = (Vec::new(), Vec::new());
    for package in ["tasker-shared", "tasker-orchestration", "tasker-worker"] {
        texts(&root().join(package).join("src"), "rs", &mut sources);
    }
    texts(&root().join("migrations"), "sql", &mut migrations);
    let api = serde_json::to_value(tasker_orchestration::web::openapi()).expect("the document");
    let routes =
        api["paths"].as_object().expect("paths").values().map(|methods| methods.as_object().map_or(0, |m| m.len()));
    for (what, found, most) in [
        ("statements", words_after(&sources, &["\"-- "]).len(), most("sql_query_duration")),
        (
            "transactions",
            words_after(&sources, &["session(\"", "begin(\"", "tx(\""]).len(),
            most("db_transaction_duration"),
        ),
        ("tables", words_after(&migrations, &["create table tasker."]).len(), most("db_table_size")),
        ("routes", routes.sum(), most("api_requests_rejected")),
    ] {
        assert!(found > 9, "{found} {what} are found");
        assert!(found < most, "raise the bound on {what} in metrics/cardinality.rs: {found} of {most}");
    }
}
