//! Where the configuration comes from: built-in files, a directory, environment variables.

use super::{
    Error, Problem,
    layer::{self, Layer},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The files of an environment, in the order in which they are read.
const FILES: [&str; 4] = ["tasker.toml", "telemetry.toml", "orchestration.toml", "worker.toml"];
const BASE: (&str, &str) = ("config/tasker/base.toml", include_str!("../../../config/tasker/base.toml"));

/// The path of a committed overlay and its text.
macro_rules! overlay {
    ($environment:literal, $file:literal) => {
        (
            $environment,
            concat!("config/tasker/environments/", $environment, "/", $file),
            include_str!(concat!("../../../config/tasker/environments/", $environment, "/", $file)),
        )
    };
}

const OVERLAYS: [(&str, &str, &str); 9] = [
    overlay!("development", "telemetry.toml"),
    overlay!("development", "worker.toml"),
    overlay!("test", "telemetry.toml"),
    overlay!("test", "orchestration.toml"),
    overlay!("test", "worker.toml"),
    overlay!("production", "tasker.toml"),
    overlay!("production", "telemetry.toml"),
    overlay!("production", "orchestration.toml"),
    overlay!("production", "worker.toml"),
];

/// The environment variables that decide; the files are found through them.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `TASKER_ENV`, `TASKER_CONFIG_ROOT`, `DATABASE_URL` and `TASKER__…`; others are not looked at.
    pub variables: BTreeMap<String, String>,
}

impl Sources {
    /// The variables of this process.
    pub fn from_process() -> Self {
        let utf8 = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self { variables: utf8.collect() }
    }

    /// The built-in files of an environment, and nothing else.
    pub fn built_in(environment: &str) -> Self {
        Self::default().with("TASKER_ENV", environment)
    }

    /// These sources with one more variable.
    #[must_use]
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.insert(variable.to_owned(), value.to_owned());
        self
    }

    /// The environment's name.
    pub fn environment(&self) -> &str {
        self.variable("TASKER_ENV").unwrap_or("development")
    }

    /// The layers, the weakest first.
    pub(super) fn layers(&self) -> Result<Vec<Layer>, Error> {
        let mut problems = Vec::new();
        let mut layers = vec![layer::from_toml(BASE.1, BASE.0, &mut problems)];
        match self.variable("TASKER_CONFIG_ROOT") {
            None => layers.extend(self.built_in_overlays(&mut problems)),
            Some(root) => layers.extend(self.directory(Path::new(root), &mut problems)),
        }
        layers.push(layer::from_variables(&self.variables, &mut problems));
        if problems.is_empty() { Ok(layers) } else { Err(Error { problems }) }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn built_in_overlays(&self, problems: &mut Vec<Problem>) -> Vec<Layer> {
        let own = OVERLAYS.iter().filter(|(environment, ..)| *environment == self.environment());
        let layers: Vec<_> = own.map(|(_, file, text)| layer::from_toml(text, file, problems)).collect();
        if layers.is_empty() {
            problems.push(Problem::UnknownEnvironment {
                name: self.environment().to_owned(),
                known: ["development", "test", "production"].map(str::to_owned).to_vec(),
                expected_directory: format!("environments/{} in the directory TASKER_CONFIG_ROOT", self.environment()),
            });
        }
        layers
    }

    fn directory(&self, root: &Path, problems: &mut Vec<Problem>) -> Vec<Layer> {
        let base = root.join("base.toml");
        let environments = root.join("environments");
        let own = environments.join(self.environment());
        if !base.is_file() && !environments.is_dir() {
            let message = "expected a directory with base.toml or environments/ in it (TASKER_CONFIG_ROOT)".to_owned();
            problems.push(Problem::Unreadable { path: root.display().to_string(), message });
            return Vec::new();
        }
        if environments.is_dir() && !own.is_dir() {
            problems.push(Problem::UnknownEnvironment {
                name: self.environment().to_owned(),
                known: names(&environments),
                expected_directory: own.display().to_string(),
            });
        }
        problems.extend(unknown_files(&own));
        let files = std::iter::once(base).chain(FILES.iter().map(|file| own.join(file)));
        files.filter_map(|file| read(&file, problems)).collect()
    }
}

fn read(file: &Path, problems: &mut Vec<Problem>) -> Option<Layer> {
    let path = file.display().to_string();
    match fs::read_to_string(file) {
        Ok(text) => Some(layer::from_toml(&text, &path, problems)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            problems.push(Problem::Unreadable { path, message: error.to_string() });
            None
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = entries(dir).filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}

/// TOML files with a name that is never read.
fn unknown_files(dir: &Path) -> Vec<Problem> {
    let toml = entries(dir).filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let unknown = toml.filter(|path| !FILES.iter().any(|file| path.ends_with(file)));
    unknown.map(|path| Problem::UnknownFile { file: path.display().to_string() }).collect()
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}
