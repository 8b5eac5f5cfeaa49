//! How much work it is to hold a value against a schema: counted before it is done, so that no value and no schema can
//! keep a thread for longer than about a second. A pattern with lookaround or backreferences is bounded for each text by the
//! validator alone, at about ten milliseconds.
//!
//! The count follows a validation from schema to schema and from part to part of the value, with repetition, and takes
//! every branch. It costs less than the validation, and stops where it becomes too much.

use super::schema::{Fault, NothingIsFetched};
use jsonschema::{Draft, Registry, Uri, uri};
use serde_json::{Map, Value};
use std::{collections::HashMap, sync::Arc};

/// The most steps of one validation. A step takes 5 to 80 nanoseconds.
const MOST_STEPS: u64 = 10_000_000;

/// The most schemas that are open at once: each takes up to a kilobyte of the thread's stack.
const DEEPEST: usize = 1_000;

/// The most schemas that all `unevaluated…` of a schema look into, each as often as references lead to it: the validator
/// has a copy for each.
const MOST_UNROLLED: u64 = 20_000;

/// The name of the schema for its own references; the validator uses the same.
const BASE: &str = "json-schema:///";

/// The work of one validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Work {
    /// The most that listing every violation can take, and the most violations there can be.
    pub(super) all: u64,
    /// The same for the first violation alone, which lists what is wrong with each alternative.
    pub(super) first: u64,
}

/// Why a value is not held against a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Excess {
    #[error(
        "checking this value against the schema would take more than {MOST_STEPS} steps; make the value smaller, or the \
         schema simpler: `allOf`, `anyOf`, `oneOf` and `$ref` multiply inside each other"
    )]
    Steps,
    #[error(
        "checking this value would open more than {DEEPEST} schemas inside each other; make the value or the chain of \
         `$ref` in the schema less deep"
    )]
    Depth,
}

/// The schemas of one schema, each with what it costs by itself.
#[derive(Debug)]
pub(super) struct Meter {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Keywords and constants: what every value costs.
    own: u64,
    /// What sixteen bytes of a text cost.
    text: u64,
    /// How many patterns each name of a member is matched with.
    patterns: u64,
    /// The value is compared as a whole.
    compares: bool,
    unevaluated: bool,
    same: Vec<usize>,
    tried: Vec<usize>,
    properties: HashMap<String, usize>,
    members: Vec<usize>,
    prefix: Vec<usize>,
    items: Vec<usize>,
    /// The cost of a value without parts, with all schemas for the same value.
    scalar: u64,
    scalar_text: u64,
    scalar_work: Work,
    /// How many schemas for the same value are open at once at most.
    height: usize,
}

impl Meter {
    /// Reads `schema`, following its references. Nothing where they cannot be followed: the validator says why.
    ///
    /// # Errors
    /// A reference that leads back to itself without going into the value, and `unevaluated…` that look into too much.
    pub(super) fn of(schema: &Value) -> Result<Option<Self>, Fault> {
        let Some(mut nodes) = read(schema) else { return Ok(None) };
        let fault = |message: &str| Fault { location: Vec::new(), message: message.to_owned() };
        let order = leaves_first(&nodes).ok_or_else(|| {
            fault("a `$ref` leads back to itself without going into the value, so that checking would never end")
        })?;
        let mut unrolled = vec![0_u64; nodes.len()];
        let mut looked_into = 0_u64;
        for at in order {
            let node = &nodes[at];
            let (mut cost, mut text) = (node.own, node.text);
            let mut work = Work { all: node.own, first: 1 };
            let (mut size, mut height) = (1_u64, 1);
            for (&inner, tried) in node.same.iter().map(|n| (n, false)).chain(node.tried.iter().map(|n| (n, true))) {
                let schema = &nodes[inner];
                cost = cost.saturating_add(schema.scalar);
                text = text.saturating_add(schema.scalar_text);
                work = work.and(schema.scalar_work, tried.then_some(schema.scalar));
                size = size.saturating_add(unrolled[inner]);
                height = height.max(schema.height + 1);
            }
            unrolled[at] = size;
            looked_into = looked_into.saturating_add(if node.unevaluated { size } else { 0 });
            let node = &mut nodes[at];
            (node.scalar, node.scalar_text, node.scalar_work, node.height) = (cost, text, work, height);
        }
        if looked_into > MOST_UNROLLED {
            return Err(fault(
                "`unevaluatedProperties` or `unevaluatedItems` look into too many schemas, as references multiply inside \
                 each other; use `additionalProperties` or fewer references",
            ));
        }
        Ok(Some(Self { nodes }))
    }

    /// Counts what holding `value` against the schema takes at most.
    ///
    /// # Errors
    /// It is too much.
    pub(super) fn work(&self, value: &Value) -> Result<Work, Excess> {
        let mut count = Count { nodes: &self.nodes, steps: 0 };
        count.visit(0, value, 0)
    }
}

impl Work {
    /// With the work of another schema. One that was `tried` first took so much more, and all that is wrong with it is
    /// part of one violation.
    fn and(self, other: Self, tried: Option<u64>) -> Self {
        let all = self.all.saturating_add(other.all).saturating_add(tried.unwrap_or(0));
        let first = if tried.is_some() { self.first.saturating_add(other.all) } else { self.first.max(other.first) };
        Self { all, first }
    }
}

/// A count that is under way.
struct Count<'a> {
    nodes: &'a [Node],
    steps: u64,
}

impl Count<'_> {
    fn spend(&mut self, steps: u64) -> Result<(), Excess> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MOST_STEPS { Err(Excess::Steps) } else { Ok(()) }
    }

    fn visit(&mut self, at: usize, value: &Value, depth: usize) -> Result<Work, Excess> {
        let node = &self.nodes[at];
        let work = self.plain(node, value, depth)?;
        if node.unevaluated && matches!(value, Value::Array(_) | Value::Object(_)) {
            self.mark(node, value, depth)?;
        }
        Ok(work)
    }

    fn plain(&mut self, node: &Node, value: &Value, depth: usize) -> Result<Work, Excess> {
        if depth > DEEPEST {
            return Err(Excess::Depth);
        }
        let has_parts = match value {
            Value::Array(items) => !items.is_empty(),
            Value::Object(members) => !members.is_empty(),
            Value::String(text) => {
                self.spend(node.scalar_text.saturating_mul(text.len() as u64 / 16))?;
                false
            }
            _ => false,
        };
        if !has_parts {
            if depth + node.height > DEEPEST {
                return Err(Excess::Depth);
            }
            self.spend(node.scalar)?;
            return Ok(node.scalar_work);
        }
        self.spend(node.own)?;
        if node.compares {
            self.size(value)?;
        }
        let mut work = Work { all: node.own, first: 1 };
        for &inner in &node.same {
            work = work.and(self.visit(inner, value, depth + 1)?, None);
        }
        for &inner in &node.tried {
            let before = self.steps;
            let inner = self.visit(inner, value, depth + 1)?;
            work = work.and(inner, Some(self.steps - before));
        }
        match value {
            Value::Array(items) => self.items(node, items, depth, work),
            Value::Object(members) => self.members(node, members, depth, work),
            _ => Ok(work),
        }
    }

    fn items(&mut self, node: &Node, items: &[Value], depth: usize, mut work: Work) -> Result<Work, Excess> {
        for (index, item) in items.iter().enumerate() {
            for &inner in node.prefix.get(index).into_iter().chain(&node.items) {
                work = work.and(self.visit(inner, item, depth + 1)?, None);
            }
            if node.items.is_empty() && index >= node.prefix.len() {
                break;
            }
        }
        Ok(work)
    }

    fn members(
        &mut self,
        node: &Node,
        members: &Map<String, Value>,
        depth: usize,
        mut work: Work,
    ) -> Result<Work, Excess> {
        for (name, &inner) in &node.properties {
            if let Some(member) = members.get(name) {
                work = work.and(self.visit(inner, member, depth + 1)?, None);
            }
        }
        if node.members.is_empty() && node.patterns == 0 {
            return Ok(work);
        }
        for (name, member) in members {
            self.spend(node.patterns.saturating_mul(1 + name.len() as u64 / 4))?;
            for &inner in &node.members {
                work = work.and(self.visit(inner, member, depth + 1)?, None);
            }
        }
        Ok(work)
    }

    /// What `unevaluated…` goes through again to find out which parts other keywords have looked at.
    fn mark(&mut self, node: &Node, value: &Value, depth: usize) -> Result<(), Excess> {
        self.plain(node, value, depth)?;
        for &inner in node.same.iter().chain(&node.tried) {
            self.mark(&self.nodes[inner], value, depth + 1)?;
        }
        Ok(())
    }

    /// A step for each part of a value that is compared as a whole.
    fn size(&mut self, value: &Value) -> Result<(), Excess> {
        self.spend(1)?;
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.size(item)),
            Value::Object(members) => members.values().try_for_each(|member| self.size(member)),
            Value::String(text) => self.spend(text.len() as u64 / 16),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }
}

/// Every schema that `schema` leads to, itself first.
fn read(schema: &Value) -> Option<Vec<Node>> {
    let draft = Draft::default().detect(schema);
    let registry = Registry::new().draft(draft).retriever(NothingIsFetched).add(BASE, schema).ok()?.prepare().ok()?;
    let root = registry.resolver(uri::from_str(BASE).ok()?).lookup("").ok()?;
    let mut reader = Reader::default();
    reader.place(root.contents(), &root.resolver().base_uri());
    let mut nodes = Vec::new();
    let mut dynamic = Vec::new();
    while let Some((schema, base)) = reader.found.get(nodes.len()).cloned() {
        let inside = registry.resolver((*base).clone()).in_subresource(draft.create_resource_ref(schema)).ok()?;
        let mut node = Node { own: 1, ..Node::default() };
        for (key, value) in schema.as_object().into_iter().flatten() {
            match (key.as_str(), value) {
                ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => {
                    let target = inside.lookup(reference).ok()?;
                    // the validator leaves out what names itself
                    if !std::ptr::eq(target.contents(), schema) {
                        node.same.push(reader.place(target.contents(), &target.resolver().base_uri()));
                    }
                    if key != "$ref" {
                        let anchor = reference.rsplit_once('#').map_or("", |(_, anchor)| anchor);
                        dynamic.push((nodes.len(), anchor.to_owned()));
                    }
                }
                ("$dynamicAnchor", Value::String(anchor)) => {
                    reader.anchors.entry(anchor.clone()).or_default().push(nodes.len());
                }
                ("$recursiveAnchor", Value::Bool(true)) => {
                    reader.anchors.entry(String::new()).or_default().push(nodes.len());
                }
                _ => reader.keyword(&mut node, key, value, &inside.base_uri()),
            }
        }
        nodes.push(node);
    }
    // which schema a dynamic reference means depends on the way to it; any that has the name may be meant
    for (at, anchor) in dynamic {
        let same = &mut nodes[at].same;
        for &named in reader.anchors.get(&anchor).into_iter().flatten() {
            if named != at && !same.contains(&named) {
                same.push(named);
            }
        }
    }
    Some(nodes)
}

/// Schemas that were found, each with the name that its references are relative to.
#[derive(Default)]
struct Reader<'a> {
    found: Vec<(&'a Value, Arc<Uri<String>>)>,
    places: HashMap<*const Value, usize>,
    anchors: HashMap<String, Vec<usize>>,
}

impl<'a> Reader<'a> {
    fn place(&mut self, schema: &'a Value, base: &Arc<Uri<String>>) -> usize {
        *self.places.entry(std::ptr::from_ref(schema)).or_insert_with(|| {
            self.found.push((schema, Arc::clone(base)));
            self.found.len() - 1
        })
    }

    fn keyword(&mut self, node: &mut Node, key: &str, value: &'a Value, base: &Arc<Uri<String>>) {
        node.own = node.own.saturating_add(1);
        match (key, value) {
            ("allOf", Value::Array(all)) => node.same.extend(all.iter().map(|schema| self.place(schema, base))),
            ("anyOf" | "oneOf", Value::Array(all)) => {
                node.tried.extend(all.iter().map(|schema| self.place(schema, base)));
            }
            ("if" | "then" | "else" | "not", schema) => node.tried.push(self.place(schema, base)),
            ("dependentSchemas" | "dependencies", Value::Object(all)) => {
                node.own = node.own.saturating_add(all.len() as u64);
                let schemas = all.values().filter(|value| !value.is_array());
                node.same.extend(schemas.map(|schema| self.place(schema, base)));
            }
            ("properties", Value::Object(all)) => {
                node.own = node.own.saturating_add(all.len() as u64);
                node.properties = all.iter().map(|(name, schema)| (name.clone(), self.place(schema, base))).collect();
            }
            ("patternProperties", Value::Object(all)) => {
                node.patterns = node.patterns.saturating_add(2 * all.len() as u64);
                node.members.extend(all.values().map(|schema| self.place(schema, base)));
            }
            ("additionalProperties" | "propertyNames", schema) => node.members.push(self.place(schema, base)),
            ("unevaluatedProperties", schema) => {
                node.unevaluated = true;
                node.members.push(self.place(schema, base));
            }
            ("prefixItems" | "items", Value::Array(all)) => {
                node.prefix.extend(all.iter().map(|schema| self.place(schema, base)));
            }
            ("items" | "additionalItems" | "contains", schema) => node.items.push(self.place(schema, base)),
            ("unevaluatedItems", schema) => {
                node.unevaluated = true;
                node.items.push(self.place(schema, base));
            }
            ("uniqueItems", _) => node.compares = true,
            ("const" | "enum", constants) => {
                node.compares = true;
                node.own = node.own.saturating_add(size(constants));
            }
            ("required" | "dependentRequired", names) => node.own = node.own.saturating_add(size(names)),
            ("minLength" | "maxLength" | "format", _) => node.text += 1,
            ("pattern" | "contentEncoding" | "contentMediaType", _) => node.text += 4,
            _ => {}
        }
    }
}

fn size(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(size).sum::<u64>() + 1,
        Value::Object(members) => members.values().map(size).sum::<u64>() + 1,
        Value::String(text) => text.len() as u64 / 16 + 1,
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

/// The order in which every schema comes after those it has for the same value. Nothing where these go round in a circle.
fn leaves_first(nodes: &[Node]) -> Option<Vec<usize>> {
    let mut users = vec![Vec::new(); nodes.len()];
    let mut open: Vec<usize> = Vec::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        open.push(node.same.len() + node.tried.len());
        for &inner in node.same.iter().chain(&node.tried) {
            users[inner].push(at);
        }
    }
    let mut order: Vec<usize> = (0..nodes.len()).filter(|at| open[*at] == 0).collect();
    let mut next = 0;
    while let Some(&at) = order.get(next) {
        next += 1;
        for &user in &users[at] {
            open[user] -= 1;
            if open[user] == 0 {
                order.push(user);
            }
        }
    }
    (order.len() == nodes.len()).then_some(order)
}

#[cfg(test)]
mod tests {
    use super::{DEEPEST, Excess, Meter};
    use serde_json::{Value, json};

    fn work(schema: &Value, value: &Value) -> Result<u64, Excess> {
        let meter = Meter::of(schema).unwrap_or_else(|fault| panic!("{fault}")).expect("its references are known");
        meter.work(value).map(|work| work.all)
    }

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!(1), |inner, _| json!({"a": inner}))
    }

    /// Definitions of which each leads to the next, `times` over.
    fn chain(length: usize, times: usize) -> Value {
        let next = |n: usize| vec![json!({"$ref": format!("#/$defs/d{}", n + 1)}); times];
        let mut definitions: serde_json::Map<_, _> =
            (0..length).map(|n| (format!("d{n}"), json!({"allOf": next(n)}))).collect();
        definitions.insert(format!("d{length}"), json!({"type": "integer"}));
        json!({"$defs": definitions, "$ref": "#/$defs/d0"})
    }

    #[test]
    fn work_that_doubles_with_the_depth_of_the_value_is_refused() {
        let twice = json!({"properties": {"a": {"$ref": "#/$defs/n"}}});
        for schema in [
            json!({"$defs": {"n": {"allOf": [twice, twice]}}, "$ref": "#/$defs/n"}),
            json!({"$defs": {"n": {"anyOf": [twice, twice]}}, "$ref": "#/$defs/n"}),
            json!({"$defs": {"n": {"if": twice, "then": twice, "else": twice}}, "$ref": "#/$defs/n"}),
            json!({"$id": "https://example.com/n", "properties": {"a": {"allOf": [{"$ref": "n"}, {"$ref": "#"}]}}}),
            json!({"$dynamicAnchor": "n", "properties": {"a": {"allOf": [{"$dynamicRef": "#n"}, {"$dynamicRef": "#n"}]}}}),
            json!({"$anchor": "n", "additionalProperties": {"allOf": [{"$ref": "#n"}, {"$ref": "#n"}]}}),
        ] {
            assert!(work(&schema, &nested(5)).is_ok(), "{schema}");
            assert_eq!(work(&schema, &nested(60)), Err(Excess::Steps), "{schema}");
        }
    }

    #[test]
    fn work_that_multiplies_along_definitions_is_refused_without_recursion_too() {
        assert!(work(&chain(5, 2), &json!(1)).is_ok());
        assert_eq!(work(&chain(60, 2), &json!(1)), Err(Excess::Steps));
        assert_eq!(work(&chain(60, 2), &json!({"a": 1})), Err(Excess::Steps));
    }

    #[test]
    fn work_that_is_large_on_both_sides_is_refused() {
        let schema = json!({"items": {"allOf": vec![json!({"minimum": 0}); 10_000]}});
        assert!(work(&schema, &json!(vec![1; 100])).is_ok());
        assert_eq!(work(&schema, &json!(vec![1; 1_000_000])), Err(Excess::Steps));
        let texts = json!({"allOf": vec![json!({"pattern": "a"}); 10_000]});
        assert_eq!(work(&texts, &json!("x".repeat(1_000_000))), Err(Excess::Steps));
        let sets = json!({"allOf": vec![json!({"uniqueItems": true}); 10_000]});
        assert_eq!(work(&sets, &json!(vec![1; 100_000])), Err(Excess::Steps));
    }

    #[test]
    fn large_trees_and_lists_pass() {
        let tree = json!({
            "$defs": {"node": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "pattern": "^[a-z0-9-]+$"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "additionalProperties": false,
            }},
            "$ref": "#/$defs/node",
        });
        let leaves = vec![json!({"name": "leaf-1"}); 200];
        let branches = vec![json!({"name": "branch", "children": leaves}); 250];
        assert!(work(&tree, &json!({"name": "root", "children": branches})).is_ok());
        let expression = json!({"$defs": {"e": {"anyOf": [
            {"type": "number"},
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/e"}, "b": {"$ref": "#/$defs/e"}}},
        ]}}, "$ref": "#/$defs/e"});
        assert!(work(&expression, &nested(100)).is_ok());
        let itself = json!({"$ref": "https://json-schema.org/draft/2020-12/schema"});
        assert!(work(&itself, &tree).is_ok());
    }

    #[test]
    fn depth_is_bounded() {
        assert!(work(&chain(DEEPEST / 2 - 2, 1), &json!({"a": 1})).is_ok());
        for value in [json!(1), json!({"a": 1})] {
            assert_eq!(work(&chain(DEEPEST, 1), &value), Err(Excess::Depth));
        }
    }

    #[test]
    fn references_in_a_circle_and_endless_unevaluated_schemas_are_faults() {
        let fault = |schema: Value| Meter::of(&schema).map(|_| ()).expect_err("it is a fault").message;
        let round = json!({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"});
        assert!(fault(round).contains("leads back to itself"));
        let mut wide = chain(18, 2);
        wide["unevaluatedProperties"] = json!(false);
        assert!(fault(wide).contains("`unevaluatedProperties`"));
    }

    #[test]
    fn references_that_cannot_be_followed_are_left_to_the_validator() {
        assert!(Meter::of(&json!({"$ref": "https://example.com/other.json"})).is_ok_and(|meter| meter.is_none()));
        assert!(Meter::of(&json!({"$ref": "#/$defs/nothing"})).is_ok_and(|meter| meter.is_none()));
    }
}
