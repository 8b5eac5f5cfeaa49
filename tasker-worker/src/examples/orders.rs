//! The steps of an order, from its check to the confirmation. Money is in cents.

use super::{Call, Failed};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A task's input.
#[derive(Deserialize)]
struct Order {
    order_id: String,
    customer: Customer,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Customer {
    name: String,
    email: String,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
    quantity: u32,
    unit_price_cents: u64,
}

fn order(call: &Call<'_>) -> Result<Order, Failed> {
    Order::deserialize(call.input).map_err(|error| Failed::for_good(format!("the input is no order: {error}")))
}

/// Checks the items and adds them up.
pub(super) fn validate_order(call: &Call<'_>) -> Result<Value, Failed> {
    let order = order(call)?;
    let mut seen = BTreeSet::new();
    let mut total = 0u64;
    for item in &order.items {
        if item.quantity == 0 {
            return Err(Failed::for_good(format!("item {} is ordered 0 times", item.sku)));
        }
        if !seen.insert(&item.sku) {
            return Err(Failed::for_good(format!("item {} is listed twice", item.sku)));
        }
        let price = item.unit_price_cents.checked_mul(item.quantity.into());
        let sum = price.and_then(|price| total.checked_add(price));
        total = sum.ok_or_else(|| Failed::for_good("the order's total is too large"))?;
    }
    if order.items.is_empty() {
        return Err(Failed::for_good("the order has no items"));
    }
    Ok(json!({ "order_id": order.order_id, "items": order.items.len(), "total_cents": total }))
}

/// Sets the items aside; no item may be ordered more often than `max_per_item`.
pub(super) fn reserve_inventory(call: &Call<'_>) -> Result<Value, Failed> {
    let order = order(call)?;
    let most = call.setting("max_per_item")?;
    if let Some(item) = order.items.iter().find(|item| i64::from(item.quantity) > most) {
        let Item { sku, quantity, .. } = item;
        return Err(Failed::for_good(format!("{quantity} pieces of {sku} are ordered, {most} are in stock")));
    }
    let pieces: u64 = order.items.iter().map(|item| u64::from(item.quantity)).sum();
    Ok(json!({ "reservation_id": format!("reservation-{}", order.order_id), "pieces": pieces }))
}

/// Takes the money. The first `fail_first` attempts fail, as a payment provider that is away for a moment would.
pub(super) fn charge_payment(call: &Call<'_>) -> Result<Value, Failed> {
    let order_id = call.input_text("order_id")?;
    let total = call.parent("validate_order")?["total_cents"].as_u64();
    let total = total.ok_or_else(|| Failed::for_good("`validate_order` gave no `total_cents`"))?;
    if i64::from(call.attempt) <= call.setting("fail_first")? {
        return Err(Failed::for_now(format!("the payment provider did not answer (attempt {})", call.attempt)));
    }
    Ok(json!({ "payment_id": format!("payment-{order_id}"), "charged_cents": total, "attempts": call.attempt }))
}

/// Hands the reserved and paid items to a carrier.
pub(super) fn ship_order(call: &Call<'_>) -> Result<Value, Failed> {
    let order_id = call.input_text("order_id")?;
    let pieces = call.parent("reserve_inventory")?["pieces"].as_u64();
    let paid = call.parent("charge_payment")?["payment_id"].as_str();
    let (Some(pieces), Some(payment)) = (pieces, paid) else {
        return Err(Failed::for_good("the items are not reserved and paid"));
    };
    Ok(json!({ "tracking_number": format!("track-{order_id}"), "pieces": pieces, "payment_id": payment }))
}

/// Writes the message to the customer.
pub(super) fn send_confirmation(call: &Call<'_>) -> Result<Value, Failed> {
    let Order { order_id, customer, .. } = order(call)?;
    let tracking = call.parent("ship_order")?["tracking_number"].as_str();
    let tracking = tracking.ok_or_else(|| Failed::for_good("`ship_order` gave no `tracking_number`"))?;
    let message = format!("Dear {}, your order {order_id} is on its way: {tracking}", customer.name);
    Ok(json!({ "to": customer.email, "message": message }))
}
