//! One line of the file: `a."b c" = "value"`. What the steps mean is not known here.

use std::borrow::Cow;

/// The line of a path and a value, with its end.
pub(super) fn line(path: &[&str], value: &str) -> String {
    let path: Vec<String> = path.iter().map(|step| bare_or_quoted(step)).collect();
    format!("{} = {}\n", path.join("."), quoted(value))
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn bare_or_quoted(step: &str) -> String {
    if !step.is_empty() && step.bytes().all(is_bare) {
        step.to_owned()
    } else {
        quoted(step)
    }
}

/// A JSON string: also a TOML one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Reads `a."b c" = "value"` as the steps `a`, `b c` and the value.
pub(super) fn split(line: &str) -> Option<(Vec<Cow<'_, str>>, Cow<'_, str>)> {
    let mut rest = line.trim_start();
    let mut path = Vec::with_capacity(4);
    loop {
        let step;
        (step, rest) = if rest.starts_with('"') {
            string(rest)?
        } else {
            let end = rest.bytes().position(|byte| !is_bare(byte))?;
            (end > 0).then(|| (Cow::Borrowed(&rest[..end]), &rest[end..]))?
        };
        path.push(step);
        match rest.strip_prefix('.') {
            Some(next) => rest = next,
            None => break,
        }
    }
    let (value, rest) = string(rest.trim_start().strip_prefix('=')?.trim_start())?;
    rest.trim().is_empty().then_some((path, value))
}

/// The quoted text that `text` begins with, and what follows.
fn string(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let inside = text.strip_prefix('"')?;
    let end = |byte: u8| byte == b'"' || byte == b'\\' || byte < b' ';
    let end = inside.bytes().position(end)?;
    // A run that does nothing reads a thousand of these: most stand there as they are.
    if inside.as_bytes()[end] == b'"' {
        return Some((Cow::Borrowed(&inside[..end]), &inside[end + 1..]));
    }
    let mut read = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let value = read.next()?.ok()?;
    Some((Cow::Owned(value), &text[read.byte_offset()..]))
}
