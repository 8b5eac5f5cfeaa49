//! URLs as they may be shown: in logs, errors and `tasker config show`.

use reqwest::Url;
use std::borrow::Cow;

/// Stands where something is not shown.
const HIDDEN: &str = "***";

/// Parameters whose values are no secrets, as PostgreSQL and Grafana name them.
const HARMLESS: [&str; 24] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "orgId",
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
    "target_session_attrs",
];

/// The URL with scheme, host, port and path alone, and what is known to be harmless of its parameters. Of a text that
/// can be understood in more than one way, or not at all, there is nothing but the scheme. A host with a port, which is
/// the usual mistake, stays.
pub fn without_secrets(url: &str) -> String {
    if url.is_empty() || is_host_and_port(url) {
        return url.to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return HIDDEN.to_owned();
    };
    let shown = if is_ambiguous(url) || Url::parse(url).is_err() { HIDDEN.to_owned() } else { parts(rest) };
    format!("{scheme}://{shown}")
}

/// Whether an `@` stands behind the first `/`, `?` or `#`, so that what is before it may be a password that is not
/// percent-encoded; or there are characters that a URL has only by mistake.
pub(crate) fn is_ambiguous(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    rest[authority_end(rest)..].contains('@') || rest.contains(odd)
}

fn parts(rest: &str) -> String {
    let (authority, behind) = rest.split_at(authority_end(rest));
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}"),
        None => authority.to_owned(),
    };
    let (behind, fragment) = behind.split_once('#').map_or((behind, ""), |(behind, _)| (behind, "#***"));
    let (path, query) = behind.split_once('?').map_or((behind, None), |(path, query)| (path, Some(query)));
    let query = query.map_or_else(String::new, |query| {
        format!("?{}", query.split('&').map(parameter).collect::<Vec<_>>().join("&"))
    });
    format!("{authority}{path}{query}{fragment}")
}

/// `name=***`; a name without a value may be a secret itself.
fn parameter(text: &str) -> Cow<'_, str> {
    match text.split_once('=') {
        Some((name, value)) if HARMLESS.contains(&name) && value.chars().all(is_plain) => text.into(),
        Some((name, value)) if !value.trim_matches('=').is_empty() => format!("{name}={HIDDEN}").into(),
        _ => HIDDEN.into(),
    }
}

fn authority_end(rest: &str) -> usize {
    rest.find(['/', '?', '#']).unwrap_or(rest.len())
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn is_host_and_port(text: &str) -> bool {
    let is_host = |host: &str| !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok())
}

/// Of what words, numbers and paths are made; certificates and other parameters are not.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_./:,~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        for (url, shown) in [
            ("postgres://me:SECRET@host:5432/app", "postgres://***@host:5432/app"),
            ("postgres://me:SEC@RE:T@host/app", "postgres://***@host/app"),
            ("postgres://me:paSECRET/ss@host/db", "postgres://***"),
            ("postgres://me:12/SECRET@host/db", "postgres://***"),
            ("postgres://me:pa?SECRET@host/db", "postgres://***"),
            ("postgres://me:12#SECRET@host/db", "postgres://***"),
            ("postgres://me:SECRET/db", "postgres://***"),
            ("postgres://me:12\\SECRET@host", "postgres://***"),
            ("https://SECRET@host/jwks", "https://***@host/jwks"),
            ("https://SECRET:@host/jwks", "https://***@host/jwks"),
            ("http://h/?email=a@b&token=SECRET", "http://***"),
            ("http://h/#SECRET", "http://h/#***"),
            ("postgres://me@host/app?password=SECRET", "postgres://***@host/app?password=***"),
            ("postgres://host/app?PASSWORD=SECRET", "postgres://host/app?PASSWORD=***"),
            ("postgres://host/app?pass%77ord=SECRET", "postgres://host/app?pass%77ord=***"),
            (
                "postgres://host/app?sslpassword=SECRET&sslmode=require",
                "postgres://host/app?sslpassword=***&sslmode=require",
            ),
            ("postgres://host/app?sslmode=require;password=SECRET", "postgres://host/app?sslmode=***"),
            ("postgres://host/app?sslkey=-----BEGIN%20SECRET", "postgres://host/app?sslkey=***"),
            ("postgres://host/app?options=-c%20a.b=SECRET", "postgres://host/app?options=***"),
            (
                "http://h/v1?api-key=SECRET&token=SECRET&auth_token=SECRET",
                "http://h/v1?api-key=***&token=***&auth_token=***",
            ),
            ("http://h/?SECRET", "http://h/?***"),
            ("http://h/?SECRET==", "http://h/?***"),
            ("http://h/?token=a&SECRET", "http://h/?token=***&***"),
            ("me:SECRET@host", "***"),
            ("SECRET", "***"),
            ("SECRET at://host", "***"),
        ] {
            assert_eq!(without_secrets(url), shown, "{url}");
            assert!(!without_secrets(url).contains("SECRET"));
        }
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for url in [
            "",
            "collector:4317",
            "postgres:///app?host=/run/postgresql&port=5433",
            "postgresql://%2Frun%2Fpostgresql/app",
            "postgres://[::1]:5432/app?sslmode=verify-full&sslrootcert=/etc/tasker/db-ca.pem&application_name=a",
            "https://id.example.com/.well-known/jwks.json",
            "https://grafana.example.com:443/sub/?orgId=1",
        ] {
            assert_eq!(without_secrets(url), url);
        }
    }
}
