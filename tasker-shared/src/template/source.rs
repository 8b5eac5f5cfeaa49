//! YAML text to a tree of nodes that know their place. The first thing that may fail on hostile input, so everything
//! here is bounded: size, depth, and what aliases expand to.

use super::problem::{Path, Place, Problems, shown};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    rc::Rc,
};

/// How large a template may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest source, in bytes.
    pub source_bytes: usize,
    /// The most steps.
    pub steps: usize,
    /// The deepest nesting of lists and mappings.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { source_bytes: 4 * 1024 * 1024, steps: 10_000, depth: 64 }
    }
}

impl Limits {
    /// What a document may weigh once its aliases are expanded; a document without aliases stays below.
    fn weight(&self) -> usize {
        self.source_bytes.saturating_mul(NODE_WEIGHT)
    }
}

/// The weight of a node beside its text.
const NODE_WEIGHT: usize = 4;

/// A piece of the document.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
    weight: usize,
    height: usize,
}

#[derive(Debug)]
pub(super) enum Content {
    /// A word; plain when it stands without quotes, and so may mean a number, a boolean or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    Map(Vec<(Key, Rc<Node>)>),
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) place: Place,
}

/// Reads the one document of `source`. `None` means that the problem found leaves nothing to look at.
pub(super) fn read(source: &str, limits: &Limits, problems: &mut Problems) -> Option<Rc<Node>> {
    let start = Place { line: 1, column: 1 };
    if source.len() > limits.source_bytes {
        let reason = format!("the file has {} bytes, at most {} are read", source.len(), limits.source_bytes);
        problems.add(start, &Path::Root, reason);
        return None;
    }
    let mut builder = Builder { limits, problems, frames: Vec::new(), anchors: HashMap::new(), weight: 0, root: None };
    let mut parser = Parser::new_from_str(source.strip_prefix('\u{feff}').unwrap_or(source));
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                builder.syntax(&error);
                return None;
            }
        }
    }
    let root = builder.root.take();
    if root.is_none() {
        problems.add(
            start,
            &Path::Root,
            "the file is empty; a template needs at least `name`, `namespace_name` and `steps`",
        );
    }
    root
}

struct Builder<'a> {
    limits: &'a Limits,
    problems: &'a mut Problems,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Rc<Node>>,
    weight: usize,
    root: Option<Rc<Node>>,
}

/// A list or mapping that is not closed yet.
struct Frame {
    place: Place,
    anchor: usize,
    weight: usize,
    height: usize,
    open: Open,
}

enum Open {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<(Key, Rc<Node>)>, seen: HashSet<String>, key: Option<Key> },
}

impl Builder<'_> {
    /// Takes the next event; `None` stops the reading after a problem that was added.
    fn take(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        let place = place(span);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Some(()),
            Event::DocumentStart(_) => match self.root {
                Some(_) => self.stop(place, "a file holds one template; put the next document into a file of its own"),
                None => Some(()),
            },
            Event::SequenceStart(anchor, tag) => self.open(place, anchor, tag.as_deref(), Open::List(Vec::new())),
            Event::MappingStart(anchor, tag) => {
                let open = Open::Map { entries: Vec::new(), seen: HashSet::new(), key: None };
                self.open(place, anchor, tag.as_deref(), open)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Scalar(text, style, anchor, tag) => self.scalar(place, text, style, anchor, tag.as_deref()),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => {
                    let expanded = node.weight;
                    self.attach(place, node, expanded)
                }
                None => self.stop(place, "an alias stands inside the node that it names"),
            },
        }
    }

    fn open(&mut self, place: Place, anchor: usize, tag: Option<&Tag>, open: Open) -> Option<()> {
        if self.expects_key() {
            return self.stop(place, "a key is one word, not a list or mapping");
        }
        if self.frames.len() >= self.limits.depth {
            return self.too_deep(place);
        }
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema() || !matches!(tag.suffix.as_str(), "map" | "seq"))
        {
            self.problem(place, unsupported_tag(tag));
        }
        self.frames.push(Frame { place, anchor, weight: NODE_WEIGHT, height: 1, open });
        Some(())
    }

    fn close(&mut self) -> Option<()> {
        let frame = self.frames.pop()?;
        let content = match frame.open {
            Open::List(items) => Content::List(items),
            Open::Map { entries, .. } => Content::Map(entries),
        };
        let node = Rc::new(Node { place: frame.place, content, weight: frame.weight, height: frame.height });
        if frame.anchor > 0 {
            self.anchors.insert(frame.anchor, Rc::clone(&node));
        }
        self.attach(frame.place, node, NODE_WEIGHT)
    }

    fn scalar(
        &mut self,
        place: Place,
        text: Cow<'_, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
    ) -> Option<()> {
        let text_tag = tag.is_some_and(|tag| is_bare(tag) || is_core(tag, "str"));
        if let Some(tag) = tag.filter(|_| !text_tag) {
            self.problem(place, unsupported_tag(tag));
        }
        let plain = style == ScalarStyle::Plain && !text_tag;
        let weight = NODE_WEIGHT + text.len();
        let node =
            Rc::new(Node { place, content: Content::Scalar { text: text.into_owned(), plain }, weight, height: 0 });
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(place, node, weight)
    }

    /// Puts a finished node where it belongs: as key, value, item or root.
    fn attach(&mut self, place: Place, node: Rc<Node>, added_weight: usize) -> Option<()> {
        if self.expects_key() {
            return self.key(place, &node);
        }
        if self.frames.len() + node.height > self.limits.depth {
            return self.too_deep(place);
        }
        self.weight = self.weight.saturating_add(added_weight);
        if self.weight > self.limits.weight() {
            return self.stop(place, "the aliases of this file expand to more than a template may hold");
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        frame.weight = frame.weight.saturating_add(node.weight);
        frame.height = frame.height.max(node.height + 1);
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map { entries, key, .. } => entries.extend(key.take().map(|key| (key, node))),
        }
        Some(())
    }

    fn key(&mut self, place: Place, node: &Node) -> Option<()> {
        let Content::Scalar { text, .. } = &node.content else {
            return self.stop(place, "a key is one word, not a list or mapping");
        };
        let Some(Frame { open: Open::Map { seen, key, .. }, weight, .. }) = self.frames.last_mut() else {
            return Some(());
        };
        *weight = weight.saturating_add(text.len());
        self.weight = self.weight.saturating_add(text.len());
        *key = Some(Key { text: text.clone(), place });
        if !seen.insert(text.clone()) {
            let reason = "this key is given twice".to_owned();
            self.problem(place, reason);
        }
        Some(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.frames.last(), Some(Frame { open: Open::Map { key: None, .. }, .. }))
    }

    fn too_deep(&mut self, place: Place) -> Option<()> {
        let reason = format!("lists and mappings are nested more than {} deep", self.limits.depth);
        self.stop(place, &reason)
    }

    fn syntax(&mut self, error: &ScanError) {
        let marker = error.marker();
        let place = Place { line: marker.line().max(1), column: marker.col() + 1 };
        self.problem(place, format!("not valid YAML: {}", error.info()));
    }

    fn stop(&mut self, place: Place, reason: &str) -> Option<()> {
        self.problem(place, reason.to_owned());
        None
    }

    fn problem(&mut self, place: Place, reason: String) {
        add(self.problems, place, &self.frames, &Path::Root, reason);
    }
}

/// Adds a problem with the path of the innermost open frame.
fn add(problems: &mut Problems, place: Place, frames: &[Frame], path: &Path<'_>, reason: String) {
    match frames.split_first() {
        None => problems.add(place, path, reason),
        Some((Frame { open: Open::List(items), .. }, inner)) => {
            add(problems, place, inner, &Path::Index(path, items.len()), reason);
        }
        Some((Frame { open: Open::Map { key: Some(key), .. }, .. }, inner)) => {
            add(problems, place, inner, &Path::Key(path, &key.text), reason);
        }
        Some((Frame { open: Open::Map { key: None, .. }, .. }, inner)) => add(problems, place, inner, path, reason),
    }
}

fn place(span: Span) -> Place {
    Place { line: span.start.line().max(1), column: span.start.col() + 1 }
}

/// `!` alone: text, whatever it looks like.
fn is_bare(tag: &Tag) -> bool {
    matches!((tag.handle.as_str(), tag.suffix.as_str()), ("", "!") | ("!", ""))
}

fn is_core(tag: &Tag, suffix: &str) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == suffix
}

fn unsupported_tag(tag: &Tag) -> String {
    format!("the tag `{}` is not supported; write the value without it", shown(&tag.to_string()))
}
