//! A worker that measures things of its own: `cargo run --example own_metrics`, with `DATABASE_URL` set.
//!
//! Its instruments are exported and scraped beside Tasker's, with the meter's name as their scope. What has to be asked
//! for is asked by a probe, on the timer of `telemetry.metrics.probe_interval_ms`.

use futures::future::BoxFuture;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};
use tasker_shared::{
    metrics::probe::{Error, Probe, Scope},
    runtime::process,
};
use tasker_worker::{
    HandlerError, StepContext,
    handler::handler_fn,
    service::{Service, built_in},
};

/// The instruments, made once.
#[derive(Clone)]
struct Shop {
    charges: Counter<u64>,
    open_invoices: Arc<Mutex<Option<i64>>>,
}

impl Shop {
    #[expect(
        clippy::disallowed_methods,
        reason = "Tasker's own metrics are declared in its catalogue; these are not its own"
    )]
    fn new(meter: &Meter) -> Self {
        let open_invoices = Arc::new(Mutex::new(None));
        let known = Arc::clone(&open_invoices);
        // a gauge that is observed ends when its value is no longer known; one that is recorded keeps its last value
        let _read_by_the_exporter = meter
            .i64_observable_gauge("shop.invoices.open")
            .with_description("Invoices to be paid.")
            .with_callback(move |observer| {
                if let Some(count) = *known.lock().unwrap_or_else(PoisonError::into_inner) {
                    observer.observe(count, &[]);
                }
            })
            .build();
        Self {
            charges: meter.u64_counter("shop.charges.total").with_description("Cards charged.").build(),
            open_invoices,
        }
    }

    fn know(&self, count: Option<i64>) {
        *self.open_invoices.lock().unwrap_or_else(PoisonError::into_inner) = count;
    }
}

/// Asks how many invoices are open: one worker at a time, because it is one number for the whole system.
struct OpenInvoices(Shop);

impl Probe for OpenInvoices {
    fn name(&self) -> &'static str {
        "open_invoices"
    }

    fn scope(&self) -> Scope {
        Scope::System
    }

    fn sample(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.0.know(Some(count_invoices().await?));
            Ok(())
        })
    }

    fn forget(&self) {
        self.0.know(None);
    }
}

/// Stands for a question to the shop's own database.
async fn count_invoices() -> Result<i64, Error> {
    Ok(3)
}

fn main() -> ExitCode {
    process::run("own-metrics", |process| async {
        let shop = Shop::new(&process.meter("shop"));
        let charges = shop.charges.clone();
        let charge = move |context: StepContext| {
            charges.add(1, &[KeyValue::new("currency", "EUR")]);
            async move { Ok::<_, HandlerError>(context.idempotency_key().to_string()) }
        };
        let mut registry = built_in(&process.config)?;
        registry.register("shop.charge", handler_fn(charge))?;
        Service::bind(process, registry).await?.with_probe(OpenInvoices(shop)).run().await
    })
}
