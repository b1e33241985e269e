//! One text per JSON value, so that spelling never changes a key.
//!
//! Promises: keys sorted at every depth; numbers by value (`1e-4` is `0.0001`, `2.0` is `2`, `-0`
//! is `0`); no white space.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

/// Above this, a float's neighbours are further apart than one.
const WHOLE_BELOW: f64 = 9_007_199_254_740_992.0;

/// The canonical text of `value`.
pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            out.push('{');
            for (at, (name, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < WHOLE_BELOW => {
            (float as i64).to_string()
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn spelling_does_not_count() {
        for (one, other, wanted) in [
            ("1e-4", "0.0001", "0.0001"),
            ("2.0", "2", "2"),
            ("-0.0", "0", "0"),
            ("1e300", "10e299", "1e+300"),
            (
                r#"{"b":1,"a":{"d":1.0,"c":2}}"#,
                r#"{ "a":{"c":2,"d":1}, "b":1 }"#,
                r#"{"a":{"c":2,"d":1},"b":1}"#,
            ),
            (r#"["\u0061", null]"#, r#"["a",null]"#, r#"["a",null]"#),
        ] {
            let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(text(&parse(one)), wanted);
            assert_eq!(text(&parse(other)), wanted);
        }
    }

    #[test]
    fn what_differs_stays_different() {
        let values = [
            json!(null),
            json!(false),
            json!(0),
            json!("0"),
            json!([]),
            json!({}),
            json!([0]),
            json!(0.1),
            json!("0.1"),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(9_007_199_254_740_993_u64),
        ];
        let texts: std::collections::BTreeSet<_> = values.iter().map(text).collect();
        assert_eq!(texts.len(), values.len());
    }

    proptest! {
        /// The canonical text is JSON of the same value, and its own canonical text.
        #[test]
        fn floats_keep_their_value(number in any::<f64>().prop_filter("finite", |x| x.is_finite())) {
            let canonical = text(&json!(number));
            let back: Value = serde_json::from_str(&canonical).unwrap();
            prop_assert_eq!(back.as_f64(), Some(number));
            prop_assert_eq!(text(&back), canonical);
        }
    }
}
