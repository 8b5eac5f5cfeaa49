//! The example templates, run step by step with their handlers: inputs, results and figures are right.

use super::{ALL, Call, Failed};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tasker_shared::template::{Compiled, parse, wfformat};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn compiled(template: &str) -> Compiled {
    let path = examples().join("templates").join(template);
    let source = std::fs::read_to_string(&path).unwrap();
    let template = parse(&source, Some(&path.to_string_lossy())).unwrap_or_else(|invalid| panic!("{invalid}"));
    Compiled::new(template.for_environment("development")).unwrap()
}

/// Runs all steps in order, retrying as the template says; the results by step.
fn run(compiled: &Compiled, input: &Value) -> Result<Map<String, Value>, Failed> {
    compiled.validate_input(input).unwrap_or_else(|violation| panic!("{violation}"));
    let mut results = Map::new();
    for &at in compiled.dag().order() {
        let step = &compiled.steps()[at];
        let (_, function) = ALL.iter().find(|(name, _)| *name == step.handler.callable).expect("the handler exists");
        let parents = step.dependencies.iter().map(|name| (name.to_string(), results[name.as_str()].clone())).collect();
        let mut attempt = 1;
        let result = loop {
            let call = Call { input, parents: &parents, initialization: &step.handler.initialization, attempt };
            match function(&call) {
                Ok(result) => break result,
                Err(failed) if !failed.retryable || attempt >= step.retry.max_attempts => return Err(failed),
                Err(_) => attempt += 1,
            }
        };
        compiled.validate_result(at, &result).unwrap_or_else(|violation| panic!("{}: {violation}", step.name));
        results.insert(step.name.to_string(), result);
    }
    Ok(results)
}

fn order() -> Value {
    json!({
        "order_id": "A-1001",
        "customer": {"name": "Ada", "email": "ada@example.org"},
        "items": [{"sku": "book", "quantity": 2, "unit_price_cents": 1999}, {"sku": "lamp", "quantity": 1, "unit_price_cents": 3450}],
    })
}

#[test]
fn every_template_of_the_examples_compiles_and_finds_its_handlers() {
    let mut count = 0;
    for entry in std::fs::read_dir(examples().join("templates")).unwrap() {
        let name = entry.unwrap().file_name();
        let compiled = compiled(name.to_str().unwrap());
        for step in compiled.steps() {
            assert!(ALL.iter().any(|(callable, _)| *callable == step.handler.callable), "{}", step.handler.callable);
        }
        count += 1;
    }
    assert_eq!(count, 4);
}

#[test]
fn the_sequence_calculates_its_number() {
    let results = run(&compiled("mathematical_sequence.yaml"), &json!({"even_number": 6})).unwrap();
    let values: Vec<&Value> = (1..=4).map(|step| &results[&format!("linear_step_{step}")]["value"]).collect();
    assert_eq!(values, [36, 46, 138, 69]);
    assert_eq!(results["linear_step_4"]["calculation"], "138 / 2");
    assert!(compiled("mathematical_sequence.yaml").validate_input(&json!({"even_number": 7})).is_err());
}

#[test]
fn numbers_that_are_too_large_or_not_even_fail_for_good() {
    let call = |input: &Value| {
        super::math::square(&Call { input, parents: &Map::new(), initialization: &Map::new(), attempt: 1 })
    };
    let failed = |message: &str| Err(Failed { message: message.to_owned(), retryable: false });
    assert_eq!(call(&json!({"even_number": 4_000_000_000i64})), failed("4000000000 squared is too large"));
    assert_eq!(call(&json!({"even_number": 3})), failed("the input needs the even number `even_number`"));
}

#[test]
fn the_diamond_adds_its_branches() {
    let results = run(&compiled("diamond.yaml"), &json!({"even_number": 6})).unwrap();
    assert_eq!(results["end"], json!({"value": 118, "calculation": "46 + 72"}));
}

#[test]
fn an_order_is_charged_on_the_third_attempt_and_confirmed() {
    let results = run(&compiled("order_fulfillment.yaml"), &order()).unwrap();
    assert_eq!(
        results["charge_payment"],
        json!({"payment_id": "payment-A-1001", "charged_cents": 7_448, "attempts": 3})
    );
    assert_eq!(
        results["send_confirmation"],
        json!({"to": "ada@example.org", "message": "Dear Ada, your order A-1001 is on its way: track-A-1001"})
    );
}

#[test]
fn orders_that_cannot_be_fulfilled_fail_for_good() {
    let template = compiled("order_fulfillment.yaml");
    for (quantity, sku, expected) in
        [(11, "pen", "11 pieces of pen are ordered, 10 are in stock"), (1, "book", "item book is listed twice")]
    {
        let mut order = order();
        order["items"].as_array_mut().unwrap().push(json!({"sku": sku, "quantity": quantity, "unit_price_cents": 1}));
        assert_eq!(run(&template, &order), Err(Failed { message: expected.to_owned(), retryable: false }));
    }
}

fn weather(directory: &Path) -> Value {
    json!({
        "csv_path": examples().join("data/seattle-weather.csv"),
        "report_path": directory.join("out/report.md"),
    })
}

/// The figures as they were computed from the same file by another program, with exact fractions.
#[test]
fn the_weather_report_has_the_right_figures() {
    let directory = tempfile::tempdir().unwrap();
    let results = run(&compiled("weather_report.yaml"), &weather(directory.path())).unwrap();
    let loaded = &results["load_and_validate"];
    assert_eq!(
        (&loaded["rows"], &loaded["first_date"], &loaded["last_date"]),
        (&json!(1_461), &json!("2012-01-01"), &json!("2015-12-31"))
    );
    let report = &results["write_report"];
    let row = |row: &Value| {
        let numbers = [
            "days",
            "precipitation_total",
            "precipitation_mean",
            "temp_max_mean",
            "temp_max_highest",
            "temp_min_mean",
            "temp_min_lowest",
            "wind_mean",
        ];
        numbers.map(|key| row[key].as_f64().unwrap())
    };
    assert_eq!(row(&report["overall"]), [1_461.0, 4_426.0, 3.03, 16.44, 35.6, 8.23, -7.1, 3.24]);
    assert_eq!(report["overall"]["weather"], json!({"drizzle": 54, "fog": 411, "rain": 259, "snow": 23, "sun": 714}));
    let years: Vec<_> = report["years"].as_array().unwrap().iter().map(row).collect();
    let expected = [
        [366.0, 1_226.0, 3.35, 15.28, 34.4, 7.29, -3.3, 3.4],
        [365.0, 828.0, 2.27, 16.06, 33.9, 8.15, -7.1, 3.02],
        [365.0, 1_232.8, 3.38, 17.0, 35.6, 8.66, -6.0, 3.39],
        [365.0, 1_139.2, 3.12, 17.43, 35.0, 8.84, -3.8, 3.16],
    ];
    assert_eq!(years, expected);
    assert_eq!(report["years"][0]["weather"], json!({"drizzle": 31, "fog": 5, "rain": 191, "snow": 21, "sun": 118}));
    let calendar = report["calendar_months"].as_array().unwrap();
    assert_eq!(calendar.len(), 12);
    assert_eq!(row(&calendar[1]), [113.0, 422.0, 3.73, 9.86, 16.7, 4.05, -6.0, 3.79]);
    assert_eq!(row(&calendar[6]), [124.0, 48.2, 0.39, 26.0, 35.0, 14.2, 9.4, 2.91]);
    assert_eq!(row(&calendar[11])[5], 3.33, "an exact half, 3.325, goes away from zero");
    let months = results["monthly_statistics"]["months"].as_array().unwrap();
    assert_eq!(
        (months.len(), &months[25]["period"], &months[47]["period"]),
        (48, &json!("2014-02"), &json!("2015-12"))
    );
    assert_eq!(row(&months[25]), [28.0, 155.2, 5.54, 8.2, 14.4, 2.64, -6.0, 4.53]);
    assert_eq!(row(&months[47]), [31.0, 284.5, 9.18, 8.38, 15.6, 3.83, -2.1, 4.34]);
    assert_eq!(months[47]["weather"], json!({"fog": 25, "sun": 6}));

    let text = std::fs::read_to_string(directory.path().join("out/report.md")).unwrap();
    assert!(
        text.contains("| 2014 | 365 | 1232.8 | 3.38 | 17.00 | 35.6 | 8.66 | -6 | 3.39 | fog 151, rain 3, sun 211 |"),
        "{text}"
    );
    assert_eq!(text.lines().filter(|line| line.starts_with("| 20")).count(), 4 + 48);
    assert!(serde_json::to_string(&results).unwrap().len() < 40_000, "results stay small");
}

#[test]
fn a_table_that_changes_after_its_check_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("table.csv");
    std::fs::write(&path, "date,precipitation,temp_max,temp_min,wind,weather\n2012/01/01,0.0,12.8,5.0,4.7,sun\n")
        .unwrap();
    let input = json!({"csv_path": path, "report_path": "unused"});
    let mut parents = Map::new();
    let loaded = super::weather::load_and_validate(&Call {
        input: &input,
        parents: &parents,
        initialization: &Map::new(),
        attempt: 1,
    });
    parents.insert("load_and_validate".to_owned(), loaded.unwrap());
    std::fs::write(&path, "date,precipitation,temp_max,temp_min,wind,weather\n2012/01/01,9.0,12.8,5.0,4.7,sun\n")
        .unwrap();
    let counted = super::weather::yearly_statistics(&Call {
        input: &input,
        parents: &parents,
        initialization: &Map::new(),
        attempt: 1,
    });
    let failed = counted.unwrap_err();
    assert_eq!(failed.message, format!("{} has changed since it was checked", path.display()));
    assert!(!failed.retryable);
}

#[test]
fn the_wfformat_example_imports() {
    let source = std::fs::read_to_string(examples().join("wfformat/three-stage.json")).unwrap();
    let options = wfformat::Options { time_scale: 1.0, ..wfformat::Options::default() };
    let template = wfformat::import(&source, &options).unwrap();
    assert_eq!((template.name.as_str(), template.steps.len()), ("three-stage", 5));
    assert_eq!(template.steps[4].dependencies.len(), 3);
    assert_eq!(template.steps[2].handler.initialization["seconds"], json!(3.25));
}
