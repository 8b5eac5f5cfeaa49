//! What each route asks of its caller: the one place. A test compares it with the router, so that no route lacks a line.

use tasker_shared::{
    access::Permission as P,
    runtime::access::{Reach, Route},
};

/// Every route of the service.
pub const ROUTES: &[Route] = &[
    Route::needs("POST", "/v1/tasks", P::TasksWrite, Reach::Handler),
    Route::needs("GET", "/v1/tasks", P::TasksRead, Reach::Handler),
    Route::needs("POST", "/v1/tasks/batch", P::TasksWrite, Reach::Handler),
    Route::needs("GET", "/v1/tasks/{task_id}", P::TasksRead, Reach::Task),
    Route::needs("GET", "/v1/tasks/{task_id}/wait", P::TasksRead, Reach::Task),
    Route::needs("GET", "/v1/tasks/{task_id}/history", P::TasksRead, Reach::Task),
    Route::needs("GET", "/v1/tasks/{task_id}/explain", P::TasksRead, Reach::Task),
    Route::needs("POST", "/v1/tasks/{task_id}/cancel", P::TasksOperate, Reach::Task).audited("task.cancel"),
    Route::needs("POST", "/v1/tasks/{task_id}/pause", P::TasksOperate, Reach::Task).audited("task.pause"),
    Route::needs("POST", "/v1/tasks/{task_id}/resume", P::TasksOperate, Reach::Task).audited("task.resume"),
    Route::needs("POST", "/v1/tasks/{task_id}/retry", P::TasksOperate, Reach::Task).audited("task.retry"),
    Route::needs("POST", "/v1/tasks/{task_id}/resolve", P::TasksOperate, Reach::Task).audited("task.resolve"),
    Route::needs("POST", "/v1/tasks/{task_id}/steps/{step}/retry", P::TasksOperate, Reach::Task).audited("step.retry"),
    Route::needs("POST", "/v1/tasks/{task_id}/steps/{step}/cancel", P::TasksOperate, Reach::Task)
        .audited("step.cancel"),
    Route::needs("POST", "/v1/tasks/{task_id}/steps/{step}/resolve", P::TasksOperate, Reach::Task)
        .audited("step.resolve"),
    Route::needs("GET", "/v1/templates", P::TemplatesRead, Reach::Handler),
    Route::needs("POST", "/v1/templates", P::TemplatesWrite, Reach::Handler).audited("template.apply"),
    Route::needs("POST", "/v1/templates/check", P::TemplatesRead, Reach::System),
    Route::needs("GET", "/v1/templates/{namespace}/{name}", P::TemplatesRead, Reach::Namespace),
    Route::needs("GET", "/v1/workers", P::WorkersRead, Reach::Handler),
    Route::needs("POST", "/v1/tasks/{task_id}/steps/{step}/park", P::TasksOperate, Reach::Task).audited("step.park"),
    Route::needs("GET", "/v1/dead-letters", P::DlqRead, Reach::Handler),
    Route::needs("GET", "/v1/dead-letters/{dead_letter_id}", P::DlqRead, Reach::Handler),
    Route::needs("POST", "/v1/dead-letters/{dead_letter_id}/redrive", P::DlqOperate, Reach::Handler)
        .audited("dead_letter.redrive"),
    Route::needs("POST", "/v1/dead-letters/{dead_letter_id}/resolve", P::DlqOperate, Reach::Handler)
        .audited("dead_letter.resolve"),
    Route::needs("POST", "/v1/dead-letters/{dead_letter_id}/discard", P::DlqOperate, Reach::Handler)
        .audited("dead_letter.discard"),
    Route::needs("GET", "/v1/limits", P::LimitsRead, Reach::Handler),
    Route::needs("PUT", "/v1/limits/{namespace}", P::LimitsWrite, Reach::Namespace).audited("limit.set"),
    Route::needs("DELETE", "/v1/limits/{namespace}", P::LimitsWrite, Reach::Namespace).audited("limit.remove"),
    Route::needs("GET", "/v1/keys", P::KeysAdmin, Reach::Handler),
    Route::needs("POST", "/v1/keys", P::KeysAdmin, Reach::Handler).audited("key.create"),
    Route::needs("POST", "/v1/keys/{prefix}/revoke", P::KeysAdmin, Reach::Handler).audited("key.revoke"),
    Route::needs("GET", "/v1/audit", P::AuditRead, Reach::System),
    Route::open("GET", "/"),
    Route::open("GET", "/openapi.json"),
    Route::open("GET", "/docs"),
    Route::open("GET", "/docs/"),
    Route::open("GET", "/docs/{*rest}"),
];
