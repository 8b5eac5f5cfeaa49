//! The URL of the database, read so that nothing of it reaches a log but where the server is.

use crate::url::is_ambiguous;
use reqwest::Url;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::str::FromStr;

/// The parameters that are heeded, and `options[…]`. sqlx logs others with their values.
const HEEDED: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Where the server is.
pub(super) struct Address {
    /// How to connect.
    pub(super) options: PgConnectOptions,
    /// Host, port and database, to be shown.
    pub(super) target: String,
}

/// Reads a URL. Parameters that are not known are left out, with a warning that names them.
///
/// # Errors
/// [`sqlx::Error::Configuration`] tells what is wrong, and nothing of the values.
pub(super) fn read(text: &str) -> Result<Address, sqlx::Error> {
    let url: Url = text.parse().map_err(|error| refused(format!("it is no URL: {error}")))?;
    let (heeded, others): (Vec<_>, Vec<_>) = url.query_pairs().into_owned().partition(|(name, _)| is_heeded(name));
    if heeded.iter().any(|(name, mode)| is_mode(name) && PgSslMode::from_str(mode).is_err()) {
        return Err(refused("sslmode is none of disable, allow, prefer, require, verify-ca and verify-full"));
    }
    for (name, value) in &others {
        let parameter = if is_name(name) && !value.is_empty() && !is_ambiguous(text) { name } else { "(not shown)" };
        tracing::warn!(parameter, "a parameter of the database's URL is not known and goes unheeded");
    }
    let mut known = url.clone();
    if !others.is_empty() {
        known.query_pairs_mut().clear().extend_pairs(&heeded);
    }
    let options = PgConnectOptions::from_str(known.as_str())?;
    let target = if is_ambiguous(text) { "the given URL".to_owned() } else { target(&options) };
    Ok(Address { options, target })
}

fn target(options: &PgConnectOptions) -> String {
    let host = options.get_socket().map_or_else(|| options.get_host().to_owned(), |s| s.display().to_string());
    format!("{host}:{}/{}", options.get_port(), options.get_database().unwrap_or(""))
}

fn refused(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Configuration(reason.into())
}

fn is_heeded(name: &str) -> bool {
    HEEDED.contains(&name) || name.starts_with("options[")
}

fn is_mode(name: &str) -> bool {
    matches!(name, "sslmode" | "ssl-mode")
}

fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::read;
    use sqlx::postgres::PgSslMode;
    use std::{
        fs::{File, read_to_string},
        sync::Arc,
    };

    /// What `work` comes to, and what it logs.
    fn lines_of<T>(work: impl FnOnce() -> T) -> (T, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = Arc::new(File::create(file.path()).unwrap());
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
        let value = tracing::subscriber::with_default(subscriber, work);
        (value, read_to_string(file.path()).unwrap())
    }

    #[test]
    fn a_parameter_that_is_not_known_is_named_without_its_value_and_the_others_count() {
        for name in ["sslpassword", "PASSWORD", "channel_binding"] {
            let url = format!("postgres://me@db/app?{name}=SECRET&sslmode=require&options[search_path]=a&user=you");
            let (address, told) = lines_of(|| read(&url).unwrap());
            assert!(told.contains(name) && told.contains("goes unheeded") && !told.contains("SECRET"), "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
            assert_eq!(address.target, "db:5432/app");
            assert_eq!(address.options.get_username(), "you");
            assert!(matches!(address.options.get_ssl_mode(), PgSslMode::Require));
            assert_eq!(address.options.get_options(), Some("-c search_path=a"));
        }
        let (_, told) = lines_of(|| read("postgres://me@db/app?sslmode=require&application_name=a").unwrap());
        assert_eq!(told, "");
    }

    #[test]
    fn nothing_of_a_url_that_can_be_read_in_two_ways_is_told() {
        for url in [
            "postgres://me:12/SECRET@db/app",
            "postgres://me:12?SECRET@db/app",
            "postgres://me:12?SECRET=a@db/app",
            "postgres://me:12#SECRET@db/app",
            "postgres://me:12@db/app?SECRET",
        ] {
            let (address, told) = lines_of(|| read(url).unwrap());
            assert!(!told.contains("SECRET") && !address.target.contains("SECRET"), "{} {told}", address.target);
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_its_values() {
        for url in [
            "postgres://me:paSECRET/ss@db/app",
            "postgres://db/app?sslmode=require;password=SECRET",
            "postgres://db/app?port=SECRET",
            "postgres://db/app?hostaddr=SECRET",
            "SECRET",
        ] {
            let (refused, told) = lines_of(|| read(url).err().unwrap());
            assert!(!refused.to_string().contains("SECRET") && !told.contains("SECRET"), "{refused} {told}");
        }
    }
}
