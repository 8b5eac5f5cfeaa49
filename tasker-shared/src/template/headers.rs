//! Headers of HTTP that a step cannot set: they are about the connection, which belongs to other steps too.

/// Why such a header is refused.
pub const REASON: &str = "this header belongs to the connection, which other steps use too, and cannot be set; the handler sets it where it is \
     needed";

/// Whether the header `name` tells how messages follow each other on a connection, or for which host they are.
pub fn belongs_to_connection(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let name = name.to_ascii_lowercase();
    NAMES.contains(&name.as_str()) || name.starts_with("proxy-") || name == "http2-settings"
}

#[cfg(test)]
mod tests {
    use super::belongs_to_connection;

    #[test]
    fn headers_of_the_connection_are_known_in_every_spelling() {
        for name in ["Content-Length", "HOST", "te", "Proxy-Authorization", "proxy-connection", "Transfer-Encoding"] {
            assert!(belongs_to_connection(name), "{name}");
        }
        for name in ["content-type", "x-host", "authorization", "accept", "idempotency-key", "content-encoding"] {
            assert!(!belongs_to_connection(name), "{name}");
        }
    }
}
