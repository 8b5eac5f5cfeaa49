//! What a route asks of its caller. Each service has one table of these.

use crate::access::Permission;
use axum::http::Method;

/// A route with what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The method, such as `GET`; it stands for `HEAD` too.
    pub method: &'static str,
    /// The path as the router has it, such as `/v1/tasks/{task_id}`.
    pub path: &'static str,
    /// Who may.
    pub access: Access,
    /// The action that the audit keeps; `None` where looking changes nothing.
    pub action: Option<&'static str>,
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody: probes, and pages without data.
    Open,
    /// Everybody, and who has the permission sees more.
    Partly(Permission),
    /// Who has the permission, as far as it reaches.
    Needs(Permission, Reach),
}

/// How the caller's namespaces bound a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Not at all: what it is about belongs to no namespace.
    System,
    /// The handler looks: at what the body names, or at what a list may have in it.
    Handler,
    /// The path names a task (`{task_id}`): of another namespace, it does not exist.
    Task,
    /// The path names a namespace (`{namespace}`).
    Namespace,
}

impl Route {
    /// A route that is open to everybody.
    pub const fn open(method: &'static str, path: &'static str) -> Self {
        Self { method, path, access: Access::Open, action: None }
    }

    /// A route that is open to everybody and shows more to those who have a permission.
    pub const fn partly(method: &'static str, path: &'static str, permission: Permission) -> Self {
        Self { method, path, access: Access::Partly(permission), action: None }
    }

    /// A route that needs a permission.
    pub const fn needs(method: &'static str, path: &'static str, permission: Permission, reach: Reach) -> Self {
        Self { method, path, access: Access::Needs(permission, reach), action: None }
    }

    /// As an action that the audit keeps.
    pub const fn audited(self, action: &'static str) -> Self {
        Self { action: Some(action), ..self }
    }

    pub(super) fn takes(&self, method: &Method) -> bool {
        self.method == method.as_str() || (self.method == "GET" && method == Method::HEAD)
    }
}

/// The routes of health checks and metrics, which every service has.
pub const COMMON: &[Route] = &[
    Route::open("GET", "/health"),
    Route::open("GET", "/health/live"),
    Route::open("GET", "/health/ready"),
    Route::partly("GET", "/health/detailed", Permission::MetricsRead),
    Route::needs("GET", "/metrics", Permission::MetricsRead, Reach::System),
];
