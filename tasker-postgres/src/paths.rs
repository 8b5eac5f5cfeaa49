//! Where a private cluster and downloaded programs live when nobody says otherwise.

use nix::unistd::geteuid;
use std::path::PathBuf;

/// The directory for a cluster's data: `$XDG_DATA_HOME/tasker` or `~/.local/share/tasker`; for root `/var/lib/tasker`,
/// because PostgreSQL then runs as another account, which cannot enter root's home.
pub fn default_data_dir() -> PathBuf {
    user_dir("XDG_DATA_HOME", ".local/share", "/var/lib/tasker")
}

/// The directory for downloaded PostgreSQL programs: `$XDG_CACHE_HOME/tasker` or `~/.cache/tasker`; for root
/// `/var/cache/tasker`.
pub fn default_cache_dir() -> PathBuf {
    user_dir("XDG_CACHE_HOME", ".cache", "/var/cache/tasker")
}

fn user_dir(variable: &str, below_home: &str, for_root: &str) -> PathBuf {
    if geteuid().is_root() {
        return for_root.into();
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute(variable)
        .or_else(|| absolute("HOME").map(|home| home.join(below_home)))
        .unwrap_or_else(std::env::temp_dir)
        .join("tasker")
}
