//! The type of an unquoted scalar: YAML 1.2 core schema, strictly.
//!
//! `yes`, `on` and `012` are no surprises here: text, text and the number twelve.
//! Source: YAML 1.2.2, section 10.3.2.

use serde_json::Number;

use super::node::Kind;

/// What the unquoted `text` means. `Err` where it is a number that JSON cannot hold
/// (`.inf`, `.nan`, `1e999`).
pub(crate) fn resolve(text: &str) -> Result<Kind, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Kind::Null),
        "true" | "True" | "TRUE" => return Ok(Kind::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Kind::Bool(false)),
        _ => {}
    }
    if let Some(number) = integer(text) {
        return Ok(Kind::Number(number));
    }
    if is_special(text) {
        return Err(format!("`{text}` is no finite number"));
    }
    if !is_decimal(text) {
        return Ok(Kind::Text(text.to_owned()));
    }
    let value: f64 = text
        .parse()
        .map_err(|_| format!("`{text}` cannot be read as a number"))?;
    Number::from_f64(value)
        .map(Kind::Number)
        .ok_or_else(|| format!("`{text}` is too large for a number"))
}

fn integer(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return plain_digits(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return plain_digits(digits, 8);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let signed = text.parse::<i64>().ok().map(Number::from);
    signed.or_else(|| text.parse::<u64>().ok().map(Number::from))
}

fn plain_digits(digits: &str, radix: u32) -> Option<Number> {
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok().map(Number::from)
}

fn is_special(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    matches!(
        unsigned,
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    )
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let whole = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    whole && exponent.is_none_or(|part| digits(part.strip_prefix(['-', '+']).unwrap_or(part)))
}

#[cfg(test)]
mod tests {
    use super::super::node::Kind;
    use super::resolve;

    fn number(text: &str) -> Option<f64> {
        match resolve(text) {
            Ok(Kind::Number(number)) => number.as_f64(),
            _ => None,
        }
    }

    #[test]
    fn numbers_are_the_core_schemas_numbers() {
        for (text, value) in [
            ("2e-4", 2e-4),
            ("+7", 7.0),
            ("012", 12.0),
            ("0x10", 16.0),
            ("0o17", 15.0),
            (".5", 0.5),
            ("1.", 1.0),
            ("-3.25E+2", -325.0),
            ("18446744073709551615", 18_446_744_073_709_551_615.0),
            ("99999999999999999999", 1e20),
        ] {
            assert_eq!(number(text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_looks_like_a_value_elsewhere_is_text_here() {
        for text in [
            "yes", "on", "No", "1_000", "e7f4b645", "1e", ".", "-", "0xg", "1.2.3", "٣",
        ] {
            assert_eq!(resolve(text), Ok(Kind::Text(text.to_owned())));
        }
    }

    #[test]
    fn numbers_without_end_are_refused() {
        for text in [".inf", "-.INF", ".nan", "1e999"] {
            assert!(resolve(text).is_err(), "{text}");
        }
    }
}
