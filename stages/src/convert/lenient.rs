//! Objects as datasets write them: JSON, or a Python literal.
//!
//! Promises: what is read is what was meant, or nothing: no guessing at cut texts. Must
//! not know: datasets, calls.

use serde_json::{Map, Number, Value};

/// Reads JSON, else a Python literal (`{'a': True, 'b': None}`). `None` when it is
/// neither, as a whole.
pub(super) fn read(text: &str) -> Option<Value> {
    let text = text.trim();
    serde_json::from_str(text).ok().or_else(|| python(text))
}

/// Whether `text` is a Python literal and no JSON.
pub(super) fn is_python(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_err() && python(text).is_some()
}

/// Reads a Python literal of dicts, lists, tuples, strings, numbers and constants.
fn python(text: &str) -> Option<Value> {
    let mut reader = Reader {
        rest: text.trim_start(),
        depth: 0,
    };
    let value = reader.value()?;
    reader.rest.trim().is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
    depth: u8,
}

impl Reader<'_> {
    fn value(&mut self) -> Option<Value> {
        self.depth = self.depth.checked_add(1).filter(|depth| *depth < 64)?;
        self.rest = self.rest.trim_start();
        let value = match self.rest.chars().next()? {
            '{' => self.dict(),
            '[' => self.list('[', ']'),
            '(' => self.list('(', ')'),
            '\'' | '"' => self.string().map(Value::String),
            _ => self.word(),
        };
        self.depth -= 1;
        value
    }

    /// Takes `sign` after blanks.
    fn take(&mut self, sign: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn dict(&mut self) -> Option<Value> {
        let mut map = Map::new();
        self.take('{');
        while !self.take('}') {
            if !map.is_empty() && !self.take(',') {
                return None;
            }
            if self.take('}') {
                break;
            }
            self.rest = self.rest.trim_start();
            let name = self.string()?;
            if !self.take(':') {
                return None;
            }
            let value = self.value()?;
            map.insert(name, value);
        }
        Some(Value::Object(map))
    }

    fn list(&mut self, open: char, close: char) -> Option<Value> {
        let mut items = Vec::new();
        self.take(open);
        while !self.take(close) {
            if !items.is_empty() && !self.take(',') {
                return None;
            }
            if self.take(close) {
                break;
            }
            items.push(self.value()?);
        }
        Some(Value::Array(items))
    }

    fn string(&mut self) -> Option<String> {
        let mut signs = self.rest.char_indices();
        let (_, quote) = signs
            .next()
            .filter(|(_, sign)| matches!(sign, '\'' | '"'))?;
        let mut text = String::new();
        while let Some((at, sign)) = signs.next() {
            if sign == quote {
                self.rest = &self.rest[at + 1..];
                return Some(text);
            }
            if sign != '\\' {
                text.push(sign);
                continue;
            }
            match signs.next()?.1 {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'u' => {
                    let digits: String = signs.by_ref().take(4).map(|(_, digit)| digit).collect();
                    text.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                }
                escaped @ ('\\' | '\'' | '"' | '/') => text.push(escaped),
                _ => return None,
            }
        }
        None
    }

    fn word(&mut self) -> Option<Value> {
        let end = self
            .rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '+' | '_')))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "True" | "true" => Some(Value::Bool(true)),
            "False" | "false" => Some(Value::Bool(false)),
            "None" | "null" => Some(Value::Null),
            number => {
                let number: Number = serde_json::from_str(number).ok()?;
                Some(Value::Number(number))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_and_python_mean_the_same() {
        let python =
            r#"{'a': True, 'b': [1, -2.5, None], 'c': "it's", 'd': 'say \'hi\'', 'e': (1, 2,)}"#;
        let value =
            json!({"a": true, "b": [1, -2.5, null], "c": "it's", "d": "say 'hi'", "e": [1, 2]});
        assert_eq!(read(python), Some(value.clone()));
        assert_eq!(read(&value.to_string()), Some(value));
    }

    #[test]
    fn cut_or_odd_texts_are_nothing() {
        for bad in [
            "{'a': 1",
            "{'a' 1}",
            "{a: 1}",
            "{'a': x}",
            "{'a': 1} b",
            "",
            "{'a': Infinity}",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read(&"[".repeat(500)), None);
    }
}
