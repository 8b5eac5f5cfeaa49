//! What a caller can choose about a cluster.

use crate::{Download, Installation};
use std::{path::PathBuf, time::Duration};

/// Whether the server may outlive the process that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// The server stops when its owner ends, however it ends (on Linux also after `kill -9`).
    WithOwner,
    /// The server goes on after its owner; somebody else has to stop it. [`crate::testkit`] does this.
    Detached,
}

/// How to start a [`crate::Cluster`].
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster's directory; holds `data/`, the log, the password and the socket. Created when missing.
    pub root: PathBuf,
    /// The programs to use; `None` finds or downloads them.
    pub installation: Option<Installation>,
    /// Where missing programs come from and go to.
    pub download: Download,
    /// `false` turns off `fsync`, for tests only: a killed server keeps its data, a crash of the machine loses it.
    pub durable: bool,
    /// Server settings, passed as `-c name=value` after the built-in ones, so that they win.
    pub settings: Vec<(String, String)>,
    /// Variables of the server's processes, beside those that they inherit; for tests of faults.
    pub environment: Vec<(String, String)>,
    /// How long the server may take until it accepts connections, crash recovery included.
    pub start_timeout: Duration,
    /// Whether the server stops with its owner.
    pub lifetime: Lifetime,
    /// Told about slow steps (download, creating the cluster) in a sentence for people.
    pub progress: fn(&str),
}

impl Options {
    /// A durable cluster in `root` that stops with its owner; programs are found or downloaded.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            installation: None,
            download: Download::from_env(),
            durable: true,
            settings: Vec::new(),
            environment: Vec::new(),
            start_timeout: Duration::from_secs(60),
            lifetime: Lifetime::WithOwner,
            progress: |message| tracing::info!("{message}"),
        }
    }
}
