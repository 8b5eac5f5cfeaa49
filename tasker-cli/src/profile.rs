//! Where the service is: from the command line, the environment, or the profile file.

use crate::{
    args::{Global, Secret},
    error::{Error, Result},
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs, io,
    path::{Path, PathBuf},
};
use tasker_shared::url::without_secrets;

/// Where `tasker dev` listens.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// The environment variables of the process.
pub type Variables = HashMap<String, String>;

/// How a service is reached.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Its address.
    pub url: String,
    /// An API key or token.
    #[serde(default)]
    pub token: Option<Secret>,
    /// A PEM file with the authority of its certificate.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// A PEM file with a client certificate and its key.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("url", &without_secrets(&self.url)).finish_non_exhaustive()
    }
}

/// The service that is meant: `--url`, `--profile`, `TASKER_URL`, `TASKER_PROFILE`, the file's `default_profile`,
/// [`DEFAULT_URL`]; the first that is given counts. A profile's token goes to the profile's address alone; one that is
/// given beside it wins, and so do certificates.
///
/// # Errors
/// Exit code 2 when a profile is named that does not exist, or the profile file cannot be understood.
pub fn connection(global: &Global, variables: &Variables) -> Result<Connection> {
    let found = profile(global, variables)?;
    Ok(given(global, variables, found))
}

/// A connection with what is given beside the profile.
pub fn given(global: &Global, variables: &Variables, found: Connection) -> Connection {
    let variable = |name: &str| variables.get(name).filter(|text| !text.is_empty()).cloned();
    let file = |option: &Option<PathBuf>, name: &str| option.clone().or_else(|| variable(name).map(PathBuf::from));
    Connection {
        token: global.token.clone().or_else(|| variable("TASKER_TOKEN").map(Secret)).or(found.token),
        ca: file(&global.ca, "TASKER_CA").or(found.ca),
        certificate: file(&global.certificate, "TASKER_CERTIFICATE").or(found.certificate),
        url: found.url,
    }
}

fn profile(global: &Global, variables: &Variables) -> Result<Connection> {
    let variable = |name: &str| variables.get(name).filter(|text| !text.is_empty()).cloned();
    let at = |url: String| Connection { url, ..Connection::default() };
    if let Some(url) = &global.url {
        return Ok(at(url.clone()));
    }
    if let Some(profile) = &global.profile {
        return File::read(variables)?.profile(profile, "--profile");
    }
    if let Some(url) = variable("TASKER_URL") {
        return Ok(at(url));
    }
    let file = File::read(variables)?;
    if let Some(profile) = variable("TASKER_PROFILE") {
        return file.profile(&profile, "TASKER_PROFILE");
    }
    match &file.content.default_profile {
        Some(profile) => file.profile(profile, "default_profile"),
        None => Ok(at(DEFAULT_URL.to_owned())),
    }
}

/// The place of the profile file; `None` without a home directory.
pub fn path(variables: &Variables) -> Option<PathBuf> {
    let directory = |name: &str| variables.get(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let config = directory("XDG_CONFIG_HOME").or_else(|| Some(directory("HOME")?.join(".config")))?;
    Some(config.join("tasker").join("cli.toml"))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    default_profile: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, Connection>,
}

struct File {
    place: Option<PathBuf>,
    content: Content,
}

impl File {
    fn read(variables: &Variables) -> Result<Self> {
        let place = path(variables);
        let content = place.as_deref().map(content).transpose()?.unwrap_or_default();
        Ok(Self { place, content })
    }

    fn profile(&self, profile: &str, given_by: &str) -> Result<Connection> {
        if let Some(found) = self.content.profiles.get(profile) {
            return Ok(found.clone());
        }
        let known: Vec<_> = self.content.profiles.keys().map(|name| format!("`{name}`")).collect();
        let place = self.place.as_ref().map_or("~/.config/tasker/cli.toml".into(), |path| path.display().to_string());
        let has = if known.is_empty() { "has no profiles".to_owned() } else { format!("has {}", known.join(", ")) };
        Err(Error::usage(format!("there is no profile `{profile}` (given by {given_by}): {place} {has}"))
            .advise(format!("add it there:  [profiles.{profile}]  url = \"{DEFAULT_URL}\"")))
    }
}

fn content(place: &Path) -> Result<Content> {
    let text = match fs::read_to_string(place) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::default()),
        Err(error) => return Err(Error::usage(format!("failed to read {}: {error}", place.display()))),
    };
    toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let (line, why) = (1 + before.matches('\n').count(), reason(error.message()));
        Error::usage(format!("{}, line {line} cannot be understood: {why}", place.display()))
            .advise("a profile is written as  [profiles.NAME]  url = \"http://…\"; --url works without the file")
    })
}

/// What the parser says, on one line and without the values it quotes: they may be tokens.
fn reason(message: &str) -> String {
    let wrong = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match wrong.and_then(|quoted| quoted.rsplit_once(", expected ")) {
        Some((_, expected)) => format!("expected {expected}"),
        None => message.lines().collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT_URL, Variables, connection};
    use crate::{
        args::{Global, Secret},
        error::Result,
        exit::Exit,
    };
    use std::fs;
    use tempfile::TempDir;

    const FILE: &str = "default_profile = \"here\"\n[profiles.here]\nurl = \"http://here\"\n[profiles.there]\nurl = \"http://there\"\n";

    fn home(file: &str) -> (TempDir, Variables) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("tasker")).unwrap();
        fs::write(home.path().join("tasker/cli.toml"), file).unwrap();
        let variables = [("XDG_CONFIG_HOME".to_owned(), home.path().display().to_string())].into();
        (home, variables)
    }

    fn url(global: &Global, variables: &Variables) -> Result<String> {
        connection(global, variables).map(|found| found.url)
    }

    fn given(url: Option<&str>, profile: Option<&str>) -> Global {
        Global { url: url.map(Into::into), profile: profile.map(Into::into), ..Global::default() }
    }

    #[test]
    fn the_nearest_source_of_the_address_counts() {
        let (_home, mut variables) = home(FILE);
        assert_eq!(url(&given(None, None), &variables).unwrap(), "http://here");
        variables.insert("TASKER_PROFILE".into(), "there".into());
        assert_eq!(url(&given(None, None), &variables).unwrap(), "http://there");
        variables.insert("TASKER_URL".into(), "http://variable".into());
        assert_eq!(url(&given(None, None), &variables).unwrap(), "http://variable");
        assert_eq!(url(&given(None, Some("here")), &variables).unwrap(), "http://here");
        assert_eq!(url(&given(Some("http://flag"), Some("here")), &variables).unwrap(), "http://flag");
    }

    #[test]
    fn without_any_source_the_local_service_is_meant() {
        assert_eq!(url(&given(None, None), &Variables::new()).unwrap(), DEFAULT_URL);
        let (_home, variables) = home("");
        assert_eq!(url(&given(None, None), &variables).unwrap(), DEFAULT_URL);
    }

    #[test]
    fn an_unknown_profile_names_the_file_and_those_that_exist() {
        let (home, variables) = home(FILE);
        let error = url(&given(None, Some("elsewhere")), &variables).unwrap_err();
        let file = home.path().join("tasker/cli.toml").display().to_string();
        let expected = format!("there is no profile `elsewhere` (given by --profile): {file} has `here`, `there`");
        assert_eq!(error.title, expected);
        assert_eq!(error.exit(), Exit::Usage);
    }

    #[test]
    fn an_unknown_key_in_the_file_is_shown_with_its_line() {
        let (_home, variables) = home("[profiles.here]\nurl = \"http://here\"\nurll = 1\n");
        let error = url(&given(None, None), &variables).unwrap_err();
        assert!(error.title.contains("line 3") && error.title.contains("urll"), "{error}");
        assert_eq!(error.exit(), Exit::Usage);
    }

    #[test]
    fn a_broken_file_does_not_show_its_tokens() {
        for file in [
            "[profiles.here]\ntoken = \"SECRET\n",
            "[profiles.here]\ntoken = SECRET\n",
            "[profiles.here]\ntoken = [\"SECRET\"]\n",
            "[profiles.here]\ntoken \"SECRET\"\n",
            "[profiles.here]\nSECRET\n",
            "[profiles]\nhere = \"SECRET\"\n",
            "profiles = \"SECRET, expected SECRET\"\n",
            "[profiles.here]\ntoken = \"SECRET\" \"SECRET\"\n",
        ] {
            let (home, variables) = home(file);
            let error = url(&given(None, None), &variables).unwrap_err().to_string();
            let line = format!("{}, line ", home.path().join("tasker/cli.toml").display());
            assert!(error.contains(&line) && !error.contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn the_file_is_not_read_when_an_address_is_given() {
        let (_home, variables) = home("not toml at all [");
        assert_eq!(url(&given(Some("http://flag"), None), &variables).unwrap(), "http://flag");
        assert!(url(&given(None, None), &variables).is_err());
    }

    #[test]
    fn a_token_of_a_profile_goes_to_that_address_alone_and_a_given_one_wins() {
        let (_home, mut variables) =
            home("[profiles.far]\nurl = \"https://far\"\ntoken = \"of-far\"\nca = \"ca.pem\"\n");
        let token = |global: &Global, variables: &Variables| connection(global, variables).unwrap().token.map(|t| t.0);
        assert_eq!(token(&given(None, Some("far")), &variables).as_deref(), Some("of-far"));
        assert_eq!(connection(&given(None, Some("far")), &variables).unwrap().ca, Some("ca.pem".into()));
        assert_eq!(token(&given(Some("http://other"), Some("far")), &variables), None);
        variables.insert("TASKER_TOKEN".into(), "of-variable".into());
        assert_eq!(token(&given(None, Some("far")), &variables).as_deref(), Some("of-variable"));
        let global = Global { token: Some(Secret("of-flag".into())), ..given(Some("http://other"), None) };
        assert_eq!(token(&global, &variables).as_deref(), Some("of-flag"));
    }

    #[test]
    fn a_token_is_not_shown_for_debugging() {
        let (_home, variables) = home("[profiles.far]\nurl = \"https://far\"\ntoken = \"of-far\"\n");
        let found = connection(&given(None, Some("far")), &variables).unwrap();
        assert!(!format!("{found:?}").contains("of-far"));
    }
}
