//! Text -> raw tree, by the event parser of serde-saphyr.
//!
//! serde-saphyr's typed side stops at the first fault and loses places in nested types;
//! its events carry a byte range each, so this walk keeps going: every repeated key, tag
//! and unreadable number of a text is reported at once. Only a syntax error ends it.
//!
//! Promises: any text gives a tree or faults with a place; depth, aliases and size are
//! bounded, so no text overflows the stack or fills memory.
#![expect(
    clippy::disallowed_types,
    reason = "places of fields are looked up; fields keep the order of the text"
)]

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_saphyr::granit_parser::{
    Event, Options, Parser, ScalarStyle, Span as ParserSpan, StrInput, Tag,
};

use super::Span;
use super::fault::Fault;
use super::node::{Entry, Kind, Node};
use super::scalar;

/// Maps and lists may stand this deep in each other.
pub(super) const MAX_DEPTH: usize = 64;
/// Values that aliases may add in all: far above any pipeline, far below a bomb.
const MAX_ALIASED: usize = 1_000_000;

/// The tree of `text` (`None` after a syntax error) and every fault met.
pub(crate) fn parse(text: &str) -> (Option<Node>, Vec<Fault>) {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder {
        parser: Parser::new_from_str_with_options(text, options),
        text,
        faults: Vec::new(),
        anchors: BTreeMap::new(),
        aliased: 0,
    };
    let node = builder
        .document()
        .map_err(|fault| builder.faults.push(*fault));
    (node.ok(), builder.faults)
}

/// A fault that ends the walk.
type Stop = Box<Fault>;

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    text: &'t str,
    faults: Vec<Fault>,
    anchors: BTreeMap<usize, (Node, usize)>,
    aliased: usize,
}

impl<'t> Builder<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.range(&span))),
            Some(Err(error)) => {
                let at = error.marker().byte_offset().unwrap_or(self.text.len());
                let mut at = at.min(self.text.len());
                while !self.text.is_char_boundary(at) {
                    at -= 1;
                }
                Err(Box::new(
                    Fault::at(&(at..at), "config::syntax", error.info())
                        .label("here")
                        .mend(syntax_mend(self.text, at)),
                ))
            }
            None => {
                let end = self.text.len()..self.text.len();
                let fault = Fault::at(&end, "config::syntax", "the text ends too early");
                Err(Box::new(fault.mend("close what is open")))
            }
        }
    }

    fn range(&self, span: &ParserSpan) -> Span {
        let range = span.byte_range().unwrap_or(0..0);
        let end = range.end.min(self.text.len());
        range.start.min(end)..end
    }

    /// One document, and nothing after it.
    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    let fault = Fault::at(&span, "config::syntax", "a second document begins here");
                    return Err(Box::new(fault.mend("keep one document in the file")));
                }
                Event::DocumentStart(..) => {
                    let (event, span) = self.next()?;
                    root = Some(match event {
                        Event::DocumentEnd => nothing(span),
                        event => self.node(event, span, 0)?,
                    });
                }
                _ => return Err(unexpected(&span)),
            }
        }
        Ok(root.unwrap_or_else(|| nothing(0..0)))
    }

    /// The value that begins with `event`.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Stop> {
        if depth > MAX_DEPTH {
            let message = format!("values are nested deeper than {MAX_DEPTH} levels");
            let fault = Fault::at(&span, "config::too-deep", message);
            return Err(Box::new(fault.mend("flatten this part of the file")));
        }
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, self.scalar(text, style, tag.as_deref(), span))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", &span);
                (anchor, self.list(span, depth)?)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", &span);
                (anchor, self.map(span, depth)?)
            }
            Event::Alias(anchor) => return self.alias(anchor, &span),
            _ => return Err(unexpected(&span)),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), count(&node)));
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<Node, Stop> {
        let Some((_, size)) = self.anchors.get(&anchor) else {
            let fault = Fault::at(
                span,
                "config::syntax",
                "this alias stands inside its own anchor",
            );
            return Err(Box::new(
                fault.mend("name an anchor that is complete above this line"),
            ));
        };
        self.aliased = self.aliased.saturating_add(*size);
        if self.aliased > MAX_ALIASED {
            let fault = Fault::at(span, "config::too-large", "aliases repeat too many values");
            return Err(Box::new(fault.mend("write fewer aliases of aliases")));
        }
        Ok(self.anchors[&anchor].0.clone())
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> Node {
        let core = tag.and_then(Tag::core_suffix);
        let kind = match (core, tag) {
            (Some("str"), _) => Ok(Kind::Text(text.into_owned())),
            (Some("null" | "bool" | "int" | "float"), _) => scalar::resolve(&text),
            (_, Some(tag)) => Err(format!("the tag `{}` is not known here", tag.original())),
            (_, None) if style == ScalarStyle::Plain => scalar::resolve(&text),
            (_, None) => Ok(Kind::Text(text.into_owned())),
        };
        let kind = kind.unwrap_or_else(|message| {
            let fault = Fault::at(&span, "config::bad-value", message);
            self.faults
                .push(fault.mend("write a plain value, or quote it to make it text"));
            Kind::Null
        });
        Node { span, kind }
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, own: &str, span: &Span) {
        let Some(tag) = tag else { return };
        if tag.core_suffix() != Some(own) {
            let message = format!("the tag `{}` is not known here", tag.original());
            let fault = Fault::at(span, "config::bad-value", message);
            self.faults.push(fault.mend("leave the tag out"));
        }
    }

    fn list(&mut self, span: Span, depth: usize) -> Result<Node, Stop> {
        let mut items: Vec<Node> = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if let Event::SequenceEnd = event {
                let span = whole(&span, items.last().map(|item| &item.span), &at);
                let kind = Kind::List(items);
                return Ok(Node { span, kind });
            }
            items.push(self.node(event, at, depth + 1)?);
        }
    }

    fn map(&mut self, span: Span, depth: usize) -> Result<Node, Stop> {
        let mut fields = Fields::default();
        let mut last: Option<Span> = None;
        loop {
            let (event, at) = self.next()?;
            if let Event::MappingEnd = event {
                let span = whole(&span, last.as_ref(), &at);
                let kind = Kind::Map(fields.finish());
                return Ok(Node { span, kind });
            }
            let key = self.node(event, at, depth + 1)?;
            let (event, at) = self.next()?;
            let value = self.node(event, at, depth + 1)?;
            last = Some(key.span.start..value.span.end.max(key.span.end));
            let key_span = key.span.clone();
            match self.key(key) {
                Some(name) if name == "<<" => self.merge(&key_span, value, &mut fields),
                Some(name) => {
                    let entry = Entry {
                        key: name,
                        key_span,
                        value,
                    };
                    self.faults.extend(fields.add(entry));
                }
                None => {}
            }
        }
    }

    /// The text of a key; a key that is a map or list is a fault.
    fn key(&mut self, key: Node) -> Option<String> {
        match key.kind {
            Kind::Text(text) => Some(text),
            Kind::Number(number) => Some(number.to_string()),
            Kind::Bool(flag) => Some(flag.to_string()),
            Kind::Null | Kind::List(_) | Kind::Map(_) => {
                let message = format!("a key is text, not {}", key.described());
                let fault = Fault::at(&key.span, "config::wrong-type", message);
                self.faults.push(fault.mend("write `name: value`"));
                None
            }
        }
    }

    /// `<<: *anchor`: fields that the map itself does not write.
    fn merge(&mut self, at: &Span, value: Node, fields: &mut Fields) {
        let sources = match value.kind {
            Kind::Map(entries) => vec![entries],
            Kind::List(items) if items.iter().all(|item| item.entries().is_some()) => items
                .into_iter()
                .filter_map(|item| match item.kind {
                    Kind::Map(entries) => Some(entries),
                    _ => None,
                })
                .collect(),
            _ => {
                let fault = Fault::at(
                    at,
                    "config::wrong-type",
                    "`<<` takes a map or a list of maps",
                );
                self.faults
                    .push(fault.mend("write `<<: *name` with an anchor on a map"));
                return;
            }
        };
        fields.merged.extend(sources.into_iter().flatten());
    }
}

/// The fields of a map while it is read.
#[derive(Default)]
struct Fields {
    entries: Vec<Entry>,
    /// Of a map with many fields, where each stands among the entries.
    places: HashMap<String, usize>,
    merged: Vec<Entry>,
}

/// A map with fewer fields is searched from one end to the other.
const FEW: usize = 16;

impl Fields {
    /// Adds a field, or says that it stands there twice.
    fn add(&mut self, entry: Entry) -> Option<Fault> {
        if let Some(first) = self.find(&entry.key) {
            let message = format!("`{}` stands here twice", entry.key);
            return Some(
                Fault::at(&entry.key_span, "config::duplicate-key", message)
                    .label("again here")
                    .also(&self.entries[first].key_span, "first here")
                    .mend("keep one of them, or rename one"),
            );
        }
        self.entries.push(entry);
        // Those before it follow when there are more than a few.
        let from = match self.entries.len() {
            ..FEW => return None,
            FEW => 0,
            more => more - 1,
        };
        for (at, entry) in self.entries.iter().enumerate().skip(from) {
            self.places.insert(entry.key.clone(), at);
        }
        None
    }

    fn find(&self, key: &str) -> Option<usize> {
        if self.entries.len() < FEW {
            return self.entries.iter().position(|entry| entry.key == key);
        }
        self.places.get(key).copied()
    }

    /// The fields, merged ones last; of equal merged keys the first wins.
    fn finish(mut self) -> Vec<Entry> {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut merged = std::mem::take(&mut self.merged);
        merged.retain(|entry| self.find(&entry.key).is_none() && seen.insert(entry.key.clone()));
        self.entries.append(&mut merged);
        self.entries
    }
}

/// From the opening to the closing bracket of a flow collection; a block collection ends
/// with its last child, since its end event stands at the next token.
fn whole(start: &Span, last: Option<&Span>, end: &Span) -> Span {
    let last = last.map_or(start.end, |span| span.end);
    let stop = if end.is_empty() { last } else { end.end };
    start.start..stop.max(start.start)
}

/// The slip that YAML makes easiest here is `{ r: ${rank} }`: its first `}` closes both.
fn syntax_mend(text: &str, at: usize) -> &'static str {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let above = text[..start.saturating_sub(1)]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let end = text[at..]
        .find('\n')
        .map_or(text.len(), |newline| at + newline);
    let near = &text[above..end];
    let bare = near.match_indices("${").any(|(brace, _)| {
        let before = near[..brace].trim_end();
        before.ends_with([':', ',', '[', '{']) && near[..brace].contains(['{', '['])
    });
    if bare {
        "inside `{ }` and `[ ]` put `${..}` in quotes: `{ r: \"${rank}\" }`"
    } else {
        "check indentation, quotes and brackets at and above this line"
    }
}

fn nothing(span: Span) -> Node {
    Node {
        span,
        kind: Kind::Null,
    }
}

fn unexpected(span: &Span) -> Stop {
    let fault = Fault::at(span, "config::syntax", "this is out of place here");
    Box::new(fault.mend("check indentation and brackets above this line"))
}

fn count(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::List(items) => items.iter().map(count).sum(),
        Kind::Map(entries) => entries.iter().map(|entry| count(&entry.value)).sum(),
        _ => 0,
    }
}
