//! Where a running cluster listens, and the URLs that lead there.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// The database superuser of every private cluster.
pub(crate) const SUPERUSER: &str = "tasker";

/// The addresses and password of one running cluster.
#[derive(Clone)]
pub struct Endpoint {
    /// The TCP port on 127.0.0.1; also part of the socket's file name.
    pub port: u16,
    /// The directory of the Unix socket; `None` when no path was short enough.
    pub socket_dir: Option<PathBuf>,
    /// The superuser's password, needed over TCP.
    pub password: String,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (port, directory) = (self.port, &self.socket_dir);
        f.debug_struct("Endpoint").field("port", &port).field("socket_dir", directory).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The URL of a database over the Unix socket, or over TCP when there is no socket.
    ///
    /// Connections over the socket need no password: its directory is open to the server's own account only.
    pub fn url(&self, database: &str) -> String {
        match &self.socket_dir {
            Some(dir) => {
                format!("postgres://{SUPERUSER}@localhost:{}/{database}?host={}", self.port, percent_encoded(dir))
            }
            None => self.tcp_url(database),
        }
    }

    /// The URL of a database over TCP, with the password.
    pub fn tcp_url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }
}

fn percent_encoded(path: &Path) -> String {
    use std::{fmt::Write as _, os::unix::ffi::OsStrExt as _};
    path.as_os_str().as_bytes().iter().fold(String::new(), |mut out, &byte| {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_path_is_encoded_in_the_url() {
        let endpoint =
            Endpoint { port: 5433, socket_dir: Some("/srv/my data/é".into()), password: "secret".to_owned() };
        assert_eq!(endpoint.url("app"), "postgres://tasker@localhost:5433/app?host=/srv/my%20data/%C3%A9");
        assert_eq!(endpoint.tcp_url("app"), "postgres://tasker:secret@127.0.0.1:5433/app");
    }

    #[test]
    fn without_a_socket_the_url_is_the_tcp_url() {
        let endpoint = Endpoint { port: 5433, socket_dir: None, password: "secret".to_owned() };
        assert_eq!(endpoint.url("app"), endpoint.tcp_url("app"));
    }
}
