//! Which hosts and addresses the `http` handler may call.
//!
//! The allowed hosts are compared with the URL and with every redirect; addresses are checked where they are resolved,
//! and the connection goes to the addresses that passed.

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};
use tasker_shared::url::without_secrets;

const MAX_REDIRECTS: usize = 10;

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
    #[error("the redirect to `{0}` gives up encryption")]
    Downgrade(String),
    #[error("more than {MAX_REDIRECTS} redirects")]
    TooManyRedirects,
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

    /// Follows a redirect to an allowed host.
    pub(super) fn follow(&self, attempt: redirect::Attempt<'_>) -> redirect::Action {
        if attempt.previous().len() > MAX_REDIRECTS {
            return attempt.error(Refused::TooManyRedirects);
        }
        let was_encrypted = attempt.previous().last().is_some_and(|from| from.scheme() == "https");
        if was_encrypted && attempt.url().scheme() != "https" {
            let host = attempt.url().host_str().unwrap_or_default().to_owned();
            return attempt.error(Refused::Downgrade(host));
        }
        match self.check(attempt.url()) {
            Ok(()) => attempt.follow(),
            Err(refused) => attempt.error(refused),
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

fn check_address(allowed: &[Allowed], host: &str, address: IpAddr) -> Result<(), Refused> {
    let plain = plain(address);
    let listed = |entry: &Allowed| matches!(entry.host, Pattern::Address(listed) if listed == plain);
    if !is_forbidden(plain) || allowed.iter().any(listed) {
        return Ok(());
    }
    Err(Refused::Address { host: host.to_owned(), address })
}

/// The IPv4 address inside an IPv6 address that only wraps one, in any of the ways in which the network unwraps it.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let (high, low) = match v6.segments() {
        // the address itself, and this machine
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => return address,
        // IPv4-mapped, and its forerunner, IPv4-compatible
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => (high, low),
        // translated by NAT64, with the well-known prefix or one of the network's own
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => (high, low),
        // translated by SIIT
        [0, 0, 0, 0, 0xffff, 0, high, low] => (high, low),
        // tunnelled by 6to4
        [0x2002, high, low, ..] => (high, low),
        // tunnelled by ISATAP
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => (high, low),
        _ => return address,
    };
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into()
}

fn is_forbidden(address: IpAddr) -> bool {
    match address {
        // 100.100.100.200, 168.63.129.16 and 192.0.0.192 are metadata services outside 169.254.0.0/16; from 240.0.0.0
        // on nothing is assigned, and the last address is a broadcast.
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_multicast()
                || matches!(
                    v4.octets(),
                    [0 | 240..=255, ..] | [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192]
                )
        }
        // fd00:ec2::/32 and fd20:ce::254 are metadata services; fec0::/10 was local to a site; 2001::/32 is a tunnel whose
        // end cannot be told.
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6 == Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)
                || matches!(v6.segments(), [0xfd00, 0xec2, ..] | [0xfec0..=0xfeff, ..] | [0x2001, 0, ..])
        }
    }
}

impl Allowed {
    fn read(entry: &str) -> Self {
        let entry = entry.trim().to_ascii_lowercase();
        let (host, port) = split_port(&entry);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = match (host, host.parse::<IpAddr>()) {
            ("*", _) => Pattern::Any,
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
    use super::{Guard, Refused};
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
