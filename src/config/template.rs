//! Text with `${..}` in it: the pieces, and what fills them.
//!
//! `$${` writes a literal `${`. A scalar that is exactly one `${..}` keeps the type of
//! its value; inside longer text the value is written out.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Span;
use super::expression::{ExpressionError, evaluate, names};
use super::fault::Fault;
use super::node::{Kind, Node};
use super::suggest;

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    /// The inside of the `${..}` that is the n-th dollar-brace of the text.
    Expression(&'a str, usize),
    /// `$${`: a literal `${`.
    Escaped,
}

/// What a `${..}` may name here.
pub(crate) struct Scope<'a> {
    /// The text of the file, to point inside a scalar.
    pub(crate) source: &'a str,
    /// Parameters.
    pub(crate) params: &'a BTreeMap<String, Value>,
    /// Parameters that only other profiles set, with one such profile.
    pub(crate) elsewhere: &'a BTreeMap<String, String>,
    /// Parameters that were swept and picked above: only a run knows their value. With the
    /// stage that picks.
    pub(crate) hidden: &'a BTreeMap<String, String>,
    /// The chosen profile.
    pub(crate) profile: &'a str,
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, usize> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut nth = 0;
    while let Some(at) = opening(rest) {
        let escaped = rest[..at].ends_with('$');
        let before = if escaped { at - 1 } else { at };
        if before > 0 {
            pieces.push(Piece::Text(&rest[..before]));
        }
        rest = &rest[at + 2..];
        if escaped {
            pieces.push(Piece::Escaped);
        } else {
            let end = rest.find('}').ok_or(nth)?;
            pieces.push(Piece::Expression(&rest[..end], nth));
            rest = &rest[end + 1..];
        }
        nth += 1;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// Where the first `${` stands. A search for one byte is far cheaper than one for a text, and most
/// texts have no `$`.
fn opening(text: &str) -> Option<usize> {
    let dollars = text.bytes().enumerate().filter(|(_, byte)| *byte == b'$');
    let mut places = dollars.map(|(at, _)| at);
    places.find(|at| text.as_bytes().get(at + 1) == Some(&b'{'))
}

impl Scope<'_> {
    /// The value of `node` with every `${..}` filled; `None` after a fault.
    pub(crate) fn value(&self, node: &Node, faults: &mut Vec<Fault>) -> Option<Value> {
        match &node.kind {
            Kind::Text(text) => self.text(node, text, faults),
            Kind::List(items) => {
                let values: Vec<_> = items.iter().map(|item| self.value(item, faults)).collect();
                values.into_iter().collect::<Option<_>>().map(Value::Array)
            }
            Kind::Map(entries) => {
                let mut map = Map::new();
                let mut whole = true;
                for entry in entries {
                    match self.value(&entry.value, faults) {
                        Some(value) => drop(map.insert(entry.key.clone(), value)),
                        None => whole = false,
                    }
                }
                whole.then_some(Value::Object(map))
            }
            _ => Some(node.value()),
        }
    }

    fn text(&self, node: &Node, text: &str, faults: &mut Vec<Fault>) -> Option<Value> {
        if opening(text).is_none() {
            return Some(Value::String(text.to_owned()));
        }
        let pieces = self.pieces(node, text, faults)?;
        if let [Piece::Expression(inside, nth)] = pieces[..] {
            return self.expression(node, inside, nth, faults);
        }
        self.joined(node, &pieces, &|_| false, faults)
            .map(Value::String)
    }

    /// The text of a command: `${inputs.x}` and `${outputs.x}` stay for the executor.
    pub(crate) fn command(&self, node: &Node, faults: &mut Vec<Fault>) -> Option<String> {
        let pieces = self.pieces(node, node.text()?, faults)?;
        self.joined(node, &pieces, &|inside| port(inside).is_some(), faults)
    }

    fn pieces<'t>(
        &self,
        node: &Node,
        text: &'t str,
        faults: &mut Vec<Fault>,
    ) -> Option<Vec<Piece<'t>>> {
        let pieces = pieces(text).map_err(|nth| {
            let span = self.inside(node, "", nth);
            let fault = Fault::at(&span, "config::expression", "`${` is not closed");
            faults.push(fault.mend("close it with `}`, or write `$${` for a literal `${`"));
        });
        pieces.ok()
    }

    fn joined(
        &self,
        node: &Node,
        pieces: &[Piece<'_>],
        stays: &dyn Fn(&str) -> bool,
        faults: &mut Vec<Fault>,
    ) -> Option<String> {
        let mut out = String::new();
        let mut whole = true;
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Escaped => out.push_str("${"),
                Piece::Expression(inside, _) if stays(inside) => {
                    out.extend(["${", inside.trim(), "}"]);
                }
                Piece::Expression(inside, nth) => {
                    let value = self.expression(node, inside, *nth, faults);
                    match value.as_ref().map(written) {
                        Some(Some(text)) => out.push_str(&text),
                        Some(None) => {
                            whole = false;
                            faults.push(self.not_text(node, inside, *nth));
                        }
                        None => whole = false,
                    }
                }
            }
        }
        whole.then_some(out)
    }

    fn not_text(&self, node: &Node, inside: &str, nth: usize) -> Fault {
        let message = format!(
            "`{}` is no single value, so it fits in no text",
            inside.trim()
        );
        Fault::at(
            &self.inside(node, inside, nth),
            "config::wrong-type",
            message,
        )
        .mend("let the scalar be this `${..}` alone, or use a parameter with one value")
    }

    fn expression(
        &self,
        node: &Node,
        inside: &str,
        nth: usize,
        faults: &mut Vec<Fault>,
    ) -> Option<Value> {
        if let Some(fault) = self.picked(node, inside, nth) {
            faults.push(fault);
            return None;
        }
        let error = match evaluate(inside, self.params) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let span = self.inside(node, inside, nth);
        faults.push(match &error {
            ExpressionError::Undefined(name) => {
                Fault::at(&span, "config::undefined-param", error.to_string())
                    .label("not defined")
                    .mend(self.undefined(name))
            }
            ExpressionError::Syntax(_) => Fault::at(&span, "config::expression", error.to_string())
                .mend("an expression holds numbers, parameters, `+ - * /` and parentheses"),
            ExpressionError::Arithmetic(_) => {
                Fault::at(&span, "config::expression", error.to_string()).mend(format!(
                    "look at the parameters' values under profile `{}`",
                    self.profile
                ))
            }
        });
        None
    }

    /// The fault of an expression that names a parameter whose value only the run will know.
    fn picked(&self, node: &Node, inside: &str, nth: usize) -> Option<Fault> {
        if self.hidden.is_empty() {
            return None;
        }
        let mut named = names(inside).into_iter();
        let (name, stage) = named.find_map(|name| self.hidden.get_key_value(name))?;
        let message = format!(
            "`{name}` is swept above, and which value `{stage}` picks is not known before the run"
        );
        let span = self.inside(node, inside, nth);
        let fault = Fault::at(&span, "config::after-pick", message).label("not known");
        Some(fault.mend("move what needs it into a stage of the sweep, whose output is picked"))
    }

    /// The `inputs.x` and `outputs.x` that a command names and that are not `known`, and where.
    pub(crate) fn ports<'n>(
        &self,
        node: &'n Node,
        known: impl Fn(&str, &str) -> bool,
    ) -> Vec<(&'n str, &'n str, Span)> {
        let pieces = pieces(node.text().unwrap_or_default()).unwrap_or_default();
        let named = pieces.into_iter().filter_map(|piece| match piece {
            Piece::Expression(inside, nth) => {
                let (side, name) = port(inside).filter(|(side, name)| !known(side, name))?;
                Some((side, name, self.inside(node, inside, nth)))
            }
            _ => None,
        });
        named.collect()
    }

    fn undefined(&self, name: &str) -> String {
        if let Some(other) = self.elsewhere.get(name) {
            return format!(
                "profile `{other}` sets it: set it in `{}` too, or give it a default under `params`",
                self.profile
            );
        }
        let known = self.params.keys().map(String::as_str);
        match suggest::nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None if name.chars().any(|c| c.is_ascii_uppercase()) => format!(
                "declare it under `params`; for a shell variable write `${name}` or `$${{{name}}}`"
            ),
            None => "declare it under `params`".to_owned(),
        }
    }

    /// Where the n-th `${..}` of a scalar stands: inside the scalar where its source is
    /// what was read, else the whole scalar (escapes, folded lines).
    fn inside(&self, node: &Node, inside: &str, nth: usize) -> Span {
        let source = self.source.get(node.span.clone()).unwrap_or("");
        let at = source.match_indices("${").nth(nth).map(|(at, _)| at);
        let Some(at) = at else {
            return node.span.clone();
        };
        let closed = format!("${{{inside}}}");
        let length = if source[at..].starts_with(&closed) {
            closed.len()
        } else {
            2
        };
        let start = node.span.start + at;
        start..start + length
    }
}

/// `inputs.x` -> (`inputs`, `x`).
pub(crate) fn port(inside: &str) -> Option<(&str, &str)> {
    let (side, name) = inside.trim().split_once('.')?;
    matches!(side, "inputs" | "outputs").then_some((side, name))
}

/// A value inside longer text; `None` for what is no single value.
pub(crate) fn written(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Piece, pieces};

    #[test]
    fn a_text_splits_into_pieces() {
        assert_eq!(
            pieces("a${x}b$${HOME}${y}"),
            Ok(vec![
                Piece::Text("a"),
                Piece::Expression("x", 0),
                Piece::Text("b"),
                Piece::Escaped,
                Piece::Text("HOME}"),
                Piece::Expression("y", 2),
            ])
        );
        assert_eq!(pieces("a${x}${y"), Err(1));
        assert_eq!(pieces("$HOME $5"), Ok(vec![Piece::Text("$HOME $5")]));
    }
}
