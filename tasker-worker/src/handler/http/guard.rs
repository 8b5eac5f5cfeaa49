//! Which hosts and addresses the `http` handler may call.
//!
//! The allowed hosts are compared with the URL and with every redirect; addresses are checked where they are resolved,
//! and the connection goes to the addresses that passed.

use super::address::{Kind, Range, meanings, plain};
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tasker_shared::url::without_secrets;

/// The call is not allowed; another attempt will not be either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("`{0}` is not an http or https URL with a host")]
    Scheme(String),
    #[error("the host `{0}` is not allowed on this worker; to allow it, add it to `worker.http.allowed_hosts`")]
    Host(String),
    #[error(
        "the host `{host}` has the address {address}, which is link-local, a metadata service or no destination; to \
         allow it, add the address itself to `worker.http.allowed_hosts`"
    )]
    Address { host: String, address: IpAddr },
    #[error(
        "the host `{host}` has the address {address}, which is of this machine or of a private network; to allow it, add {add} \
         to `worker.http.allowed_hosts`"
    )]
    Inside { host: String, address: IpAddr, add: &'static str },
    #[error("the redirect to `{0}` gives up encryption")]
    Downgrade(String),
}

/// The worker's list, ready to compare.
#[derive(Debug)]
pub(super) struct Guard {
    allowed: Arc<[Allowed]>,
}

#[derive(Debug)]
struct Allowed {
    host: Pattern,
    port: Option<u16>,
}

#[derive(Debug)]
enum Pattern {
    Any,
    Below(String),
    Host(String),
    Address(IpAddr),
    Range(Range),
}

impl Guard {
    pub(super) fn new(allowed: &[String]) -> Self {
        Self { allowed: allowed.iter().map(|entry| Allowed::read(entry)).collect() }
    }

    /// Whether `url` may be called, as far as can be told without resolving its host.
    pub(super) fn check(&self, url: &Url) -> Result<(), Refused> {
        let (host, port) = host_of(url).ok_or_else(|| Refused::Scheme(without_secrets(url.as_str())))?;
        if !self.allowed.iter().any(|entry| entry.covers(&host, port)) {
            return Err(Refused::Host(host));
        }
        match host.parse() {
            Ok(address) => check_address(&self.allowed, &host, address),
            Err(_) => Ok(()),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            for address in &addresses {
                check_address(&allowed, &host, address.ip())?;
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether `host`, which the list allows, may have `address`.
fn check_address(allowed: &[Allowed], host: &str, address: IpAddr) -> Result<(), Refused> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if allowed.iter().any(|entry| matches!(entry.host, Pattern::Address(listed) if listed == plain(address))) {
        return Ok(());
    }
    let any = allowed.iter().any(|entry| matches!(entry.host, Pattern::Any));
    let named = allowed.iter().any(|entry| matches!(&entry.host, Pattern::Host(name) if *name == host));
    let local = host == "localhost" || host.ends_with(".localhost");
    for meaning in meanings(address) {
        let in_range =
            || allowed.iter().any(|entry| matches!(&entry.host, Pattern::Range(range) if range.has(meaning)));
        let inside = |add| Err(Refused::Inside { host: host.clone(), address, add });
        match Kind::of(meaning) {
            Kind::Never => return Err(Refused::Address { host, address }),
            Kind::Public => {}
            Kind::ThisMachine if any || (named && local) || in_range() => {}
            Kind::Private if any || named || in_range() => {}
            Kind::ThisMachine => return inside("the address itself"),
            Kind::Private => return inside("the name itself, the address or its range (such as `10.0.0.0/8`)"),
        }
    }
    Ok(())
}

impl Allowed {
    fn read(entry: &str) -> Self {
        let entry = entry.trim().to_ascii_lowercase();
        let (host, port) = split_port(&entry);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = match (host, host.parse::<IpAddr>()) {
            ("*", _) => Pattern::Any,
            _ if let Some(range) = Range::read(&entry) => Pattern::Range(range),
            (_, Ok(address)) => Pattern::Address(plain(address)),
            (host, Err(_)) => match host.strip_prefix("*.") {
                Some(parent) => Pattern::Below(format!(".{parent}")),
                None => Pattern::Host(host.to_owned()),
            },
        };
        Self { host, port }
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        let same = match &self.host {
            Pattern::Any => true,
            Pattern::Below(parent) => host.ends_with(parent.as_str()),
            Pattern::Host(name) => name == host,
            Pattern::Address(address) => host.parse().is_ok_and(|host| plain(host) == *address),
            Pattern::Range(range) => host.parse().is_ok_and(|host| range.has(plain(host))),
        };
        same && self.port.is_none_or(|allowed| allowed == port)
    }
}

/// An IPv6 address without brackets has colons of its own and no port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if entry.parse::<IpAddr>().is_ok() {
        return (entry, None);
    }
    match entry.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => (host, Some(port)),
        _ => (entry, None),
    }
}

/// Host (lower case, without brackets or a final dot) and port of an http or https URL.
fn host_of(url: &Url) -> Option<(String, u16)> {
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    let host = url.host_str()?.to_ascii_lowercase();
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_owned();
    Some((host, url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::{Allowed, Guard, Refused, check_address};
    use reqwest::dns::Resolve;

    fn check(allowed: &[&str], url: &str) -> Result<(), Refused> {
        let allowed: Vec<_> = allowed.iter().map(|&entry| entry.to_owned()).collect();
        Guard::new(&allowed).check(&url.parse().expect("it is a URL"))
    }

    #[test]
    fn only_listed_hosts_are_called() {
        for (allowed, url, expected) in [
            ("api.example.com", "https://API.example.com./x", true),
            ("api.example.com", "https://api.example.com.evil.org/", false),
            ("api.example.com", "https://api.example.com@evil.org/", false),
            ("api.example.com", "https://x.api.example.com/", false),
            ("*.example.com", "https://a.b.example.com/", true),
            ("*.example.com", "https://example.com/", false),
            ("*.example.com", "https://evilexample.com/", false),
            ("api.example.com:8443", "https://api.example.com:8443/", true),
            ("api.example.com:8443", "https://api.example.com/", false),
            ("127.0.0.1", "http://127.0.0.1:9/", true),
            ("[::1]:80", "http://[::1]/", true),
            ("::1", "http://[::1]:81/", true),
            ("*", "http://anything.example/", true),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("127.0.0.0/8", "http://127.1/", true),
            ("fd00::/16", "http://[fd00::1]/", true),
            ("0.0.0.0/0", "http://a.example/", false),
        ] {
            assert_eq!(check(&[allowed], url).is_ok(), expected, "{allowed} {url}");
        }
        assert_eq!(check(&[], "http://a.example/"), Err(Refused::Host("a.example".to_owned())));
        assert!(matches!(check(&["*"], "ftp://a.example/"), Err(Refused::Scheme(_))));
    }

    #[test]
    fn metadata_addresses_are_refused_in_every_spelling_unless_listed_themselves() {
        for url in [
            "http://169.254.169.254/latest/meta-data",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://100.100.100.200/",
            "http://168.63.129.16/metadata",
            "http://0251.0376.0251.0376/",
            "http://0xa9.254.0251.254/",
            "http://169.254.43518/",
            "http://0251.254.169.254/",
            "http://169.254.169.254./",
            "http://%31%36%39.254.169.254/",
            "http://\u{ff11}\u{ff16}\u{ff19}.254.169.254/",
            "http://169\u{3002}254.169.254/",
            "http://user@169.254.169.254/",
            "http://api.example.com@169.254.169.254/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[0:0:0:0:0:ffff:169.254.169.254]/",
            "http://[::169.254.169.254]/",
            "http://[::ffff:0:169.254.169.254]/",
            "http://[64:ff9b:1::a9fe:a9fe]/",
            "http://[64:ff9b:1:2:3:4:a9fe:a9fe]/",
            "http://[64:ff9b:1:a9fe:a9:fe00::]/",
            "http://[64:ff9b:1:a9:fe:a9fe::]/",
            "http://[64:ff9b:1:2:a9:fea9:fe00:0]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://[2001:db8::5efe:169.254.169.254]/",
            "http://[2001:db8::200:5efe:a9fe:a9fe]/",
            "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
            "http://[fd00:ec2::23]/",
            "http://[fd20:ce::254]/",
            "http://[fec0::1]/",
            "http://[ff02::1]/",
            "http://0/",
            "http://0.1.2.3/",
            "http://240.0.0.1/",
            "http://255.255.255.255/",
            "http://224.0.0.1/",
        ] {
            assert!(matches!(check(&["*"], url), Err(Refused::Address { .. })), "{url}");
        }
        assert!(matches!(check(&["0.0.0.0/0"], "http://169.254.169.254/"), Err(Refused::Address { .. })));
        assert_eq!(check(&["*", "169.254.169.254"], "http://169.254.169.254/"), Ok(()));
        assert_eq!(check(&["169.254.169.254"], "http://[::ffff:169.254.169.254]/"), Ok(()));
    }

    #[test]
    fn this_machine_is_called_only_where_it_is_listed_in_any_spelling() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://localhost/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            assert!(matches!(check(&["api.example.com", "*.example.com"], url), Err(Refused::Host(_))), "{url}");
        }
        assert_eq!(check(&["127.0.0.1"], "http://2130706433/"), Ok(()));
        assert_eq!(check(&["127.0.0.1:80"], "http://127.1:81/"), Err(Refused::Host("127.0.0.1".to_owned())));
    }

    #[test]
    fn other_schemes_and_urls_without_a_host_are_refused() {
        for url in
            ["file:///etc/passwd", "ftp://a.example/", "gopher://a.example:70/_", "data:text/plain,x", "unix:/run/x"]
        {
            assert!(matches!(check(&["*"], url), Err(Refused::Scheme(_))), "{url}");
        }
        let refused = check(&["*"], "ftp://user:secret@a.example/x?token=secret#secret").expect_err("it is no http");
        assert_eq!(
            refused.to_string(),
            "`ftp://***@a.example/x?token=***#***` is not an http or https URL with a host"
        );
    }

    #[test]
    fn names_lead_inside_only_where_that_is_listed() {
        let leads = |allowed: &[&str], host: &str, address: &str| {
            let allowed: Vec<Allowed> = allowed.iter().map(|entry| Allowed::read(entry)).collect();
            check_address(&allowed, host, address.parse().expect("it is an address"))
        };
        let (public, private, this_machine) = ("93.184.216.34", "10.1.2.3", "127.0.0.1");
        for (allowed, host, address, expected) in [
            (&["a.example"][..], "a.example", public, true),
            (&["a.example"], "a.example", private, true),
            (&["a.example:80"], "A.example.", private, true),
            (&["a.example"], "a.example", "fd12::1", true),
            (&["a.example"], "a.example", "100.64.0.1", true),
            (&["a.example"], "a.example", this_machine, false),
            (&["a.example"], "a.example", "::1", false),
            (&["a.example"], "a.example", "127.9.9.9", false),
            (&["a.example"], "a.example", "::ffff:127.0.0.1", false),
            (&["a.example", "127.0.0.1"], "a.example", this_machine, true),
            (&["a.example", "127.0.0.0/8"], "a.example", this_machine, true),
            (&["localhost"], "localhost", this_machine, true),
            (&["localhost:8080"], "localhost", "::1", true),
            (&["*.example"], "a.example", public, true),
            (&["*.example"], "a.example", private, false),
            (&["*.example"], "a.example", "172.16.0.1", false),
            (&["*.example"], "a.example", "192.168.0.1", false),
            (&["*.example"], "a.example", "100.64.0.1", false),
            (&["*.example"], "a.example", "fd12::1", false),
            (&["*.example"], "a.example", "64:ff9b:1::10.1.2.3", false),
            (&["*.example"], "a.example", "64:ff9b:1::93.184.216.34", true),
            (&["*.example", "10.0.0.0/8"], "a.example", private, true),
            (&["*.example", "a.example"], "a.example", private, true),
            (&["*"], "a.example", private, true),
            (&["*"], "a.example", this_machine, true),
            (&["*", "169.254.0.0/16"], "a.example", "169.254.169.254", false),
        ] {
            assert_eq!(leads(allowed, host, address).is_ok(), expected, "{allowed:?} {host} {address}");
        }
        let refused = leads(&["a.example"], "a.example", this_machine).expect_err("it is this machine").to_string();
        assert!(refused.contains("add the address itself to `worker.http.allowed_hosts`"), "{refused}");
    }

    #[tokio::test]
    async fn names_are_checked_after_they_are_resolved() {
        let guard = Guard::new(&["*".to_owned()]);
        let resolve = |name: &str| guard.resolve(name.parse().expect("it is a name"));
        let refused = resolve("0.0.0.0").await.map(|_| ()).expect_err("it is no destination");
        assert!(matches!(refused.downcast_ref(), Some(Refused::Address { .. })), "{refused}");
        assert!(resolve("localhost").await.is_ok_and(|mut addresses| addresses.all(|a| a.ip().is_loopback())));
    }
}
