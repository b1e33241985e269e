//! The raw tree of the last pipeline text, kept in a file: reading it back costs a tenth of parsing
//! the text again, which is a quarter of a run that does nothing.
//!
//! The file is one digest, over the program that wrote it, the text and all that follows; then the
//! tree. Promises: what comes back is what this very program's parser made of these very bytes, or
//! nothing; a text with a fault is never remembered; losing or damaging the file costs time.
//! Must not know: what the tree means.

use std::fs;
use std::path::PathBuf;

use serde_json::Number;

use super::Span;
use super::fault::Fault;
use super::node::{Entry, Kind, Node};
use super::parse::{self, MAX_DEPTH};

/// Shorter texts are parsed in less than a millisecond.
const WORTH_IT: usize = 8 << 10;

const SEAL: usize = blake3::OUT_LEN;

/// How values begin in the file.
mod mark {
    pub(super) const NULL: u8 = 0;
    pub(super) const FALSE: u8 = 1;
    pub(super) const TRUE: u8 = 2;
    pub(super) const POSITIVE: u8 = 3;
    pub(super) const NEGATIVE: u8 = 4;
    pub(super) const FLOAT: u8 = 5;
    /// A text that is its place in the file, as it stands.
    pub(super) const PLAIN: u8 = 6;
    /// A text that is its place in the file, between quotes.
    pub(super) const QUOTED: u8 = 7;
    /// Any other text, written out.
    pub(super) const TEXT: u8 = 8;
    pub(super) const LIST: u8 = 9;
    pub(super) const MAP: u8 = 10;
}

/// The memory of one pipeline file.
#[derive(Debug)]
pub struct Remembered {
    file: PathBuf,
    /// What the file should hold, if it holds something else.
    new: Option<Vec<u8>>,
}

impl Remembered {
    /// The memory in `file`, which need not be there.
    pub fn at(file: PathBuf) -> Self {
        Self { file, new: None }
    }

    /// [`parse::parse`], or what it made of this text before.
    pub(crate) fn parse(&mut self, text: &str) -> (Option<Node>, Vec<Fault>) {
        if text.len() < WORTH_IT {
            return parse::parse(text);
        }
        let bytes = fs::read(&self.file).unwrap_or_default();
        if let Some(tree) = unsealed(text, &bytes).and_then(|body| tree(text, body)) {
            return (Some(tree), Vec::new());
        }
        let (tree, faults) = parse::parse(text);
        if let (Some(tree), true) = (&tree, faults.is_empty()) {
            self.new = Some(sealed(text, tree));
        }
        (tree, faults)
    }

    /// Writes what is new, into a folder that is there by now. It is no fault if that fails.
    pub fn keep(self) {
        let Some(bytes) = self.new else { return };
        let aside = format!("aside-{}", std::process::id());
        let aside = self.file.with_extension(aside);
        let written = fs::write(&aside, bytes).and_then(|()| fs::rename(&aside, &self.file));
        if written.is_err() {
            let _gone = fs::remove_file(&aside);
        }
    }
}

/// The digest of a tree's bytes, of its text, and of the program: a build with another parser
/// believes nothing of this one's.
fn seal(text: &str, body: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("tunesmith 2026 remembered pipeline");
    let program = std::env::current_exe().and_then(fs::metadata);
    if let Ok(program) = program {
        let since = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).ok();
        let built = program.modified().ok().and_then(since).unwrap_or_default();
        hasher.update(&program.len().to_le_bytes());
        hasher.update(&built.as_nanos().to_le_bytes());
    }
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
    hasher.update(body);
    hasher.finalize()
}

fn sealed(text: &str, tree: &Node) -> Vec<u8> {
    let mut bytes = vec![0; SEAL];
    write_node(text, tree, &mut bytes);
    let seal = seal(text, &bytes[SEAL..]);
    bytes[..SEAL].copy_from_slice(seal.as_bytes());
    bytes
}

fn unsealed<'b>(text: &str, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let (found, body) = bytes.split_at_checked(SEAL)?;
    (seal(text, body).as_bytes() == found).then_some(body)
}

fn write_node(source: &str, node: &Node, out: &mut Vec<u8>) {
    match &node.kind {
        Kind::Null => out.push(mark::NULL),
        Kind::Bool(flag) => out.push(if *flag { mark::TRUE } else { mark::FALSE }),
        Kind::Number(number) => write_number(number, out),
        Kind::Text(text) => {
            write_text(source, text, &node.span, out);
            return;
        }
        Kind::List(items) => {
            out.push(mark::LIST);
            write_count(items.len(), out);
            for item in items {
                write_node(source, item, out);
            }
        }
        Kind::Map(entries) => {
            out.push(mark::MAP);
            write_count(entries.len(), out);
            for entry in entries {
                write_text(source, &entry.key, &entry.key_span, out);
                write_node(source, &entry.value, out);
            }
        }
    }
    write_span(&node.span, out);
}

fn write_number(number: &Number, out: &mut Vec<u8>) {
    let (mark, bytes) = if let Some(value) = number.as_u64() {
        (mark::POSITIVE, value.to_le_bytes())
    } else if let Some(value) = number.as_i64() {
        (mark::NEGATIVE, value.to_le_bytes())
    } else {
        let value = number.as_f64().expect("a number is one of three kinds");
        (mark::FLOAT, value.to_le_bytes())
    };
    out.push(mark);
    out.extend(bytes);
}

fn write_text(source: &str, text: &str, span: &Span, out: &mut Vec<u8>) {
    let written = source.get(span.clone()).unwrap_or_default();
    let inside = written.get(1..written.len().saturating_sub(1));
    if written == text {
        out.push(mark::PLAIN);
    } else if inside == Some(text) {
        out.push(mark::QUOTED);
    } else {
        out.push(mark::TEXT);
        write_count(text.len(), out);
        out.extend(text.as_bytes());
    }
    write_span(span, out);
}

fn write_span(span: &Span, out: &mut Vec<u8>) {
    write_count(span.start, out);
    write_count(span.len(), out);
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn write_count(mut count: usize, out: &mut Vec<u8>) {
    while count > 127 {
        out.push(count as u8 | 128);
        count >>= 7;
    }
    out.push(count as u8);
}

/// The tree in `body`; nothing where that is not one.
fn tree(source: &str, body: &[u8]) -> Option<Node> {
    let mut reader = Reader { source, rest: body };
    let tree = reader.node(0)?;
    reader.rest.is_empty().then_some(tree)
}

struct Reader<'a> {
    source: &'a str,
    rest: &'a [u8],
}

impl Reader<'_> {
    fn node(&mut self, depth: usize) -> Option<Node> {
        if depth > MAX_DEPTH {
            return None;
        }
        let kind = match self.byte()? {
            mark::NULL => Kind::Null,
            mark::FALSE => Kind::Bool(false),
            mark::TRUE => Kind::Bool(true),
            mark::POSITIVE => Kind::Number(u64::from_le_bytes(self.eight()?).into()),
            mark::NEGATIVE => Kind::Number(i64::from_le_bytes(self.eight()?).into()),
            mark::FLOAT => Kind::Number(Number::from_f64(f64::from_le_bytes(self.eight()?))?),
            mark::LIST => {
                let count = self.count()?;
                let mut items = Vec::with_capacity(count.min(self.rest.len()));
                for _ in 0..count {
                    items.push(self.node(depth + 1)?);
                }
                Kind::List(items)
            }
            mark::MAP => {
                let count = self.count()?;
                let mut entries = Vec::with_capacity(count.min(self.rest.len()));
                for _ in 0..count {
                    entries.push(self.entry(depth)?);
                }
                Kind::Map(entries)
            }
            text => {
                let (text, span) = self.text(text)?;
                let kind = Kind::Text(text);
                return Some(Node { span, kind });
            }
        };
        let span = self.span()?;
        Some(Node { span, kind })
    }

    fn entry(&mut self, depth: usize) -> Option<Entry> {
        let mark = self.byte()?;
        let (key, key_span) = self.text(mark)?;
        Some(Entry {
            key,
            key_span,
            value: self.node(depth + 1)?,
        })
    }

    fn text(&mut self, mark: u8) -> Option<(String, Span)> {
        let own = match mark {
            mark::PLAIN | mark::QUOTED => None,
            mark::TEXT => {
                let length = self.count()?;
                let (text, rest) = self.rest.split_at_checked(length)?;
                self.rest = rest;
                Some(std::str::from_utf8(text).ok()?)
            }
            _ => return None,
        };
        let span = self.span()?;
        let text = match own {
            Some(text) => text,
            None if mark == mark::PLAIN => self.source.get(span.clone())?,
            None => self.source.get(span.start + 1..span.end.checked_sub(1)?)?,
        };
        Some((text.to_owned(), span))
    }

    fn span(&mut self) -> Option<Span> {
        let start = self.count()?;
        let length = self.count()?;
        Some(start..start.checked_add(length)?)
    }

    fn count(&mut self) -> Option<usize> {
        let mut count = 0;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.byte()?;
            count |= usize::from(byte & 127) << shift;
            if byte < 128 {
                return Some(count);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn eight(&mut self) -> Option<[u8; 8]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "name: x\nn: [1, -2, 2.5, 18446744073709551615, ~, true, False]\n\
        base: &a { q: \"in quotes\", s: 'it''s', e: \"a\\tb\", \"odd key\": 1e3 }\n\
        more: { <<: *a, q: other }\nfolded: >\n  two\n  lines\nempty:\nlist:\n  - a\n  - { b: c }\n";

    fn parsed(text: &str) -> Node {
        let (tree, faults) = parse::parse(text);
        assert!(faults.is_empty(), "{faults:?}");
        tree.unwrap()
    }

    /// A text that is long enough to be remembered.
    fn long() -> String {
        format!("{TEXT}{}", "# a comment\n".repeat(WORTH_IT / 8))
    }

    #[test]
    fn a_tree_comes_back_as_the_parser_made_it() {
        let made = parsed(TEXT);
        let bytes = sealed(TEXT, &made);
        assert_eq!(tree(TEXT, unsealed(TEXT, &bytes).unwrap()), Some(made));
    }

    #[test]
    fn a_text_is_parsed_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("parsed");
        let text = long();
        let mut first = Remembered::at(file.clone());
        assert_eq!(first.parse(&text).0, Some(parsed(&text)));
        first.keep();
        let mut second = Remembered::at(file.clone());
        assert_eq!(second.parse(&text).0, Some(parsed(&text)));
        assert!(second.new.is_none(), "it was read, not parsed");
        let other = text.replace("two", "2");
        assert_eq!(second.parse(&other).0, Some(parsed(&other)));
        assert!(second.new.is_some(), "another text is parsed");
    }

    #[test]
    fn a_text_with_a_fault_is_told_every_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("parsed");
        let text = format!("{}name: again\n", long());
        for _ in 0..2 {
            let mut remembered = Remembered::at(file.clone());
            assert_eq!(remembered.parse(&text).1.len(), 1);
            remembered.keep();
        }
        assert!(!file.exists());
    }

    #[test]
    fn a_damaged_file_is_nothing() {
        let tree = parsed(TEXT);
        let bytes = sealed(TEXT, &tree);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(unsealed(TEXT, &damaged), None, "byte {at}");
            assert_eq!(unsealed(TEXT, &bytes[..at]), None, "cut at {at}");
        }
    }

    proptest! {
        /// Even under a seal nothing makes the reader panic or take memory without bound.
        #[test]
        fn any_bytes_are_a_tree_or_nothing(
            random in prop::collection::vec(prop_oneof![0..12_u8, any::<u8>()], 0..60),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            tree(TEXT, &random);
            let mut body = sealed(TEXT, &parsed(TEXT)).split_off(SEAL);
            let at = at.index(body.len());
            body[at] = byte;
            tree(TEXT, &body);
        }
    }
}
