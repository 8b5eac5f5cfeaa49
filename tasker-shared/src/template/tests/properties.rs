//! Properties that hold for every template, and for everything that is none.

use crate::{
    name::Name,
    step::{Backoff, RetryPolicy},
    task::IdentityStrategy,
    template::{
        Concurrency, Dag, Handler, Keep, Lifecycle, Retention, RetryOverride, StepOverride, StepTemplate, Template,
        checksum, graph, model::DEFAULT_TIMEOUT, parse, to_yaml, wfformat,
    },
};
use proptest::{collection, option, prelude::*};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Duration};

/// For each step which earlier steps it waits for, as flags.
fn edges(largest: usize) -> impl Strategy<Value = Vec<Vec<bool>>> {
    collection::vec(collection::vec(prop::bool::weighted(0.3), largest), 1..largest)
}

fn name(index: usize) -> Name {
    Name::new(&format!("s{index}")).unwrap()
}

fn step(index: usize, waits_for: &[bool]) -> StepTemplate {
    StepTemplate {
        name: name(index),
        description: None,
        dependencies: (0..index).filter(|&earlier| waits_for[earlier]).map(name).collect(),
        handler: Handler { callable: "c".to_owned(), method: None, initialization: Map::new() },
        retry: RetryPolicy::default(),
        timeout: DEFAULT_TIMEOUT,
        result_schema: None,
        concurrency: None,
    }
}

fn template(steps: Vec<StepTemplate>) -> Template {
    Template {
        namespace: name(0),
        name: name(1),
        version: "1".to_owned(),
        description: None,
        metadata: Map::new(),
        input_schema: None,
        identity_strategy: IdentityStrategy::AlwaysUnique,
        lifecycle: Lifecycle::default(),
        retention: Retention::default(),
        steps,
        environments: BTreeMap::new(),
    }
}

/// A random graph without cycles, its steps in random order.
fn acyclic() -> impl Strategy<Value = Template> {
    edges(20)
        .prop_map(|edges| edges.iter().enumerate().map(|(index, waits_for)| step(index, waits_for)).collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(template)
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z_][a-zA-Z0-9_.:-]{0,12}",
        Just("no".to_owned()),
        Just("1.0".to_owned()),
        Just("null".to_owned()),
        Just("~".to_owned())
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            collection::btree_map(json_key(), inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Any text but YAML's merge key, which a template cannot have.
fn json_key() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), word()].prop_filter("merge key", |key| key != "<<")
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    collection::btree_map(json_key(), json_value(), 0..4).prop_map(|map| map.into_iter().collect())
}

fn retry_override() -> impl Strategy<Value = RetryOverride> {
    let backoff = prop::sample::select(Backoff::ALL);
    (
        option::of(any::<bool>()),
        option::of(1..1_000u32),
        option::of(backoff),
        option::of(0..1_000u64),
        option::of(60_000..100_000u64),
        option::of(any::<bool>()),
    )
        .prop_map(|(retryable, max_attempts, backoff, backoff_base_ms, max_backoff_ms, jitter)| RetryOverride {
            retryable,
            max_attempts,
            backoff,
            backoff_base_ms,
            max_backoff_ms,
            jitter,
        })
}

fn timeout() -> impl Strategy<Value = Duration> {
    (1..100_000_000u64).prop_map(Duration::from_millis)
}

fn schema() -> impl Strategy<Value = Option<Value>> {
    option::of(
        json_key().prop_map(|key| json!({"type": "object", "required": [key], "const": {"a": [1, {"b": null}]}})),
    )
}

fn any_step() -> impl Strategy<Value = StepTemplate> {
    let handler = ("[!-~ü]{1,20}", option::of("[a-z]{1,5}"), object())
        .prop_map(|(callable, method, initialization)| Handler { callable, method, initialization });
    let key = prop::sample::select(vec![None, Some("shared"), Some("input.customer.id")]);
    let concurrency = option::of((1..1_000u32, key))
        .prop_map(|given| given.map(|(limit, key)| Concurrency { limit, key: key.map(str::to_owned) }));
    (option::of(any::<String>()), handler, retry_override(), timeout(), schema(), concurrency).prop_map(
        |(description, handler, retry, timeout, result_schema, concurrency)| StepTemplate {
            name: name(0),
            description,
            dependencies: Vec::new(),
            handler,
            retry: retry.applied_to(&RetryPolicy::default()),
            timeout,
            result_schema,
            concurrency,
        },
    )
}

/// A template with every key at random.
fn full() -> impl Strategy<Value = Template> {
    let changed = (object(), retry_override(), option::of(timeout()))
        .prop_map(|(initialization, retry, timeout)| StepOverride { initialization, retry, timeout });
    let environments = collection::btree_map("[a-z]{1,6}", collection::btree_map(Just(name(0)), changed, 0..2), 0..3);
    let head = (option::of(any::<String>()), object(), schema(), prop::sample::select(IdentityStrategy::ALL));
    let limit = || option::of((1..1_000_000u64).prop_map(Duration::from_millis));
    let limit = (limit(), limit(), limit(), option::of(0..100u32)).prop_map(
        |(max_duration, max_queued, max_retry_wait, max_retries)| Lifecycle {
            max_duration,
            max_queued,
            max_retry_wait,
            max_retries,
        },
    );
    let keep = || {
        let age = (60_000..3_153_600_000_000u64).prop_map(|ms| Keep::For(Duration::from_millis(ms)));
        option::of(prop_oneof![age, Just(Keep::Forever)])
    };
    let retention =
        (keep(), keep()).prop_map(|(complete_after, failed_after)| Retention { complete_after, failed_after });
    (acyclic(), collection::vec(any_step(), 20), head, (limit, retention), environments).prop_map(
        |(mut template, bodies, head, (lifecycle, retention), environments)| {
            let (description, metadata, input_schema, identity_strategy) = head;
            for (step, body) in template.steps.iter_mut().zip(bodies) {
                let StepTemplate { name, dependencies, .. } = step.clone();
                *step = StepTemplate { name, dependencies, ..body };
            }
            Template {
                description,
                metadata,
                input_schema,
                identity_strategy,
                lifecycle,
                retention,
                environments,
                ..template
            }
        },
    )
}

proptest! {
    // Fewer than usual: each case is a whole template with everything in it.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn a_written_template_reads_back_equal(template in full()) {
        let yaml = to_yaml(&template);
        let read = parse(&yaml, Some("written")).map_err(|invalid| TestCaseError::fail(format!("{invalid}\n{yaml}")))?;
        prop_assert_eq!(&read, &template, "{}", yaml);
        prop_assert_eq!(checksum(&read), checksum(&template));
        let stored: Template = serde_json::from_str(&serde_json::to_string(&template).unwrap()).unwrap();
        prop_assert_eq!(checksum(&stored), checksum(&template));
    }

    #[test]
    fn no_change_of_one_character_makes_the_reader_panic(template in full(), at in any::<prop::sample::Index>(), put in any::<char>()) {
        let mut text: Vec<char> = to_yaml(&template).chars().collect();
        let at = at.index(text.len());
        text[at] = put;
        let _ = parse(&text.into_iter().collect::<String>(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_a_graph_puts_every_step_once_and_after_its_parents(template in acyclic()) {
        let dag = Dag::new(&template.steps).unwrap();
        let mut position = vec![None; dag.len()];
        for (at, &step) in dag.order().iter().enumerate() {
            prop_assert!(position[step].replace(at).is_none(), "step {} twice", step);
        }
        for step in 0..dag.len() {
            prop_assert!(position[step].is_some());
            let names: Vec<&Name> = dag.parents(step).iter().map(|&parent| &template.steps[parent].name).collect();
            let mut expected: Vec<&Name> = template.steps[step].dependencies.iter().collect();
            expected.sort_by_key(|name| template.steps.iter().position(|step| step.name == **name));
            prop_assert_eq!(names, expected);
            for &parent in dag.parents(step) {
                prop_assert!(position[parent] < position[step]);
                prop_assert!(dag.children(parent).contains(&step));
                prop_assert!(dag.levels()[parent] < dag.levels()[step]);
            }
        }
        prop_assert_eq!(graph::mermaid(&template).lines().count(), 1 + dag.len() + template.steps.iter().map(|s| s.dependencies.len()).sum::<usize>());
        for step in &template.steps {
            prop_assert!(graph::text(&template).contains(step.name.as_str()));
        }
    }

    #[test]
    fn a_graph_with_a_cycle_is_refused_naming_a_real_one(
        mut template in acyclic(),
        from in any::<prop::sample::Index>(),
        length in 2..8usize,
    ) {
        // A ring through some steps that are there, or through new ones where there are too few.
        let ring: Vec<Name> = (0..length).map(|at| name(100 + at)).collect();
        for (at, own) in ring.iter().enumerate() {
            let mut member = step(0, &[]);
            member.name = own.clone();
            member.dependencies = vec![ring[(at + 1) % length].clone()];
            if at == 0 {
                member.dependencies.push(template.steps[from.index(template.steps.len())].name.clone());
            }
            template.steps.push(member);
        }
        let refused = parse(&to_yaml(&template), None).unwrap_err();
        let cycle = refused.problems.iter().find_map(|problem| {
            Some(problem.reason.strip_prefix("the dependencies form a cycle: ")?.strip_suffix(" (each waits for the next)")?.to_owned())
        });
        let cycle = cycle.expect("a cycle is named");
        let way: Vec<&str> = cycle.split(" -> ").collect();
        prop_assert_eq!(way.first(), way.last());
        prop_assert!(way.len() > 2);
        for pair in way.windows(2) {
            let waiting = template.steps.iter().find(|step| step.name.as_str() == pair[0]).unwrap();
            prop_assert!(waiting.dependencies.iter().any(|dependency| dependency.as_str() == pair[1]), "{cycle}");
        }
        prop_assert!(Dag::new(&template.steps).is_err());
    }

    #[test]
    fn no_text_makes_the_readers_panic(text in any::<String>()) {
        let _ = parse(&text, None);
        let _ = wfformat::import(&text, &wfformat::Options::default());
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = parse(&text, None);
    }

    #[test]
    fn no_yaml_like_text_makes_the_reader_panic(text in "([a-c&*!<>|?:, \n\t\"'{}\\[\\]#%@~-]|- |: |\n  |name: |steps:|---|\\.\\.\\.){0,60}") {
        let _ = parse(&text, None);
    }

    #[test]
    fn no_json_makes_the_importer_panic(tasks in json_value(), executed in json_value()) {
        let document = json!({"workflow": {"specification": {"tasks": tasks}, "execution": {"tasks": executed}}});
        let _ = wfformat::import(&document.to_string(), &wfformat::Options::default());
    }
}
