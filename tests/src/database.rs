//! A database for one test, copied from a template database that has the schema.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use sqlx::{Connection, Executor, PgConnection, PgPool};
use tasker_postgres::testkit::Shared;
use tasker_shared::{id::TaskId, storage::schema};

/// Makes the template database once for all test processes.
const LOCK: i64 = 0x7465_7374;

/// A database that is dropped with its last connection gone, when the test ends well.
#[derive(Debug)]
pub struct TestDatabase {
    /// Its name.
    pub name: String,
    /// How to reach it.
    pub url: String,
}

impl TestDatabase {
    /// A database with the schema.
    ///
    /// # Errors
    /// PostgreSQL cannot be had; the message says what to install.
    pub async fn create() -> Result<Self> {
        let shared = tokio::task::spawn_blocking(Shared::get).await??;
        let mut admin = PgConnection::connect(&shared.admin_url()).await.context("connect as administrator")?;
        let template = template(shared, &mut admin).await?;
        let name = format!("t_{}", TaskId::generate().0.simple());
        admin.execute(format!("create database {name} template {template}").as_str()).await?;
        Ok(Self { url: shared.url(&name), name })
    }

    /// A database without the schema.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn empty() -> Result<Self> {
        let shared = tokio::task::spawn_blocking(Shared::get).await??;
        let mut admin = PgConnection::connect(&shared.admin_url()).await.context("connect as administrator")?;
        let name = format!("e_{}", TaskId::generate().0.simple());
        admin.execute(format!("create database {name}").as_str()).await?;
        Ok(Self { url: shared.url(&name), name })
    }

    /// Removes it; connections that are left are cut.
    ///
    /// # Errors
    /// PostgreSQL refuses.
    pub async fn drop(self) -> Result<()> {
        let shared = tokio::task::spawn_blocking(Shared::get).await??;
        let mut admin = PgConnection::connect(&shared.admin_url()).await?;
        admin.execute(format!("drop database if exists {} with (force)", self.name).as_str()).await?;
        Ok(())
    }
}

async fn template(shared: &Shared, admin: &mut PgConnection) -> Result<String> {
    let mut hash = Sha256::new();
    for migration in schema::checksums() {
        hash.update(migration);
    }
    let digest: String = hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
    let name = format!("template_{digest}");
    sqlx::query("select pg_advisory_lock($1)").bind(LOCK).execute(&mut *admin).await?;
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(&name)
        .fetch_one(&mut *admin)
        .await?;
    if !exists {
        let building = format!("{name}_building");
        admin.execute(format!("drop database if exists {building} with (force)").as_str()).await?;
        admin.execute(format!("create database {building}").as_str()).await?;
        let pool = PgPool::connect(&shared.url(&building)).await?;
        schema::migrate(&pool).await?;
        pool.close().await;
        // a backend may take a moment to leave, and a database in use cannot be renamed
        sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1")
            .bind(&building)
            .execute(&mut *admin)
            .await?;
        admin.execute(format!("alter database {building} rename to {name}").as_str()).await?;
    }
    sqlx::query("select pg_advisory_unlock($1)").bind(LOCK).execute(admin).await?;
    Ok(name)
}
