//! `${..}`: names, numbers, `+ - * /` and parentheses.
//!
//! Promises: whole numbers stay whole as long as the result is whole (`${2 * rank}` is
//! `32`, `${rank / 3}` is not rounded); any text gives a value or a sentence. Must not
//! know: YAML, places.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

/// Parentheses may stand this deep in each other.
const MAX_DEPTH: usize = 64;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpressionError {
    /// A name that is no parameter.
    #[error("undefined parameter `{0}`")]
    Undefined(String),
    /// Not in the little language.
    #[error("{0}")]
    Syntax(String),
    /// Arithmetic that has no result.
    #[error("{0}")]
    Arithmetic(String),
}

use ExpressionError::{Arithmetic, Syntax, Undefined};

/// The value of `text`. A bare name keeps the parameter's type, arithmetic takes numbers.
pub(crate) fn evaluate(
    text: &str,
    params: &BTreeMap<String, Value>,
) -> Result<Value, ExpressionError> {
    let name = text.trim();
    if is_name(name) {
        let value = params.get(name);
        return value.cloned().ok_or_else(|| Undefined(name.to_owned()));
    }
    let mut reader = Reader { rest: text, params };
    let number = reader.sum(0)?;
    match reader.peek() {
        None => number.value(),
        Some(')') => Err(Syntax("`)` closes nothing".to_owned())),
        Some(other) => Err(Syntax(format!("`{other}` is out of place here"))),
    }
}

/// Whether `text` may name a parameter: letters, digits and `_`, no digit first.
pub(crate) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(starts_name) && chars.all(continues_name)
}

/// The names in `text`, in order.
pub(crate) fn names(text: &str) -> Vec<&str> {
    let words = text.split(|c| !continues_name(c) && c != '.');
    words.filter(|word| is_name(word)).collect()
}

fn starts_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn continues_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[derive(Clone, Copy)]
enum Term {
    Whole(i64),
    Real(f64),
}

struct Reader<'a> {
    rest: &'a str,
    params: &'a BTreeMap<String, Value>,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self, wanted: &[char]) -> Option<char> {
        let next = self.peek().filter(|c| wanted.contains(c))?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    /// `product (('+' | '-') product)*`
    fn sum(&mut self, depth: usize) -> Result<Term, ExpressionError> {
        let mut left = self.product(depth)?;
        while let Some(sign) = self.take(&['+', '-']) {
            let right = self.product(depth)?;
            left = if sign == '+' {
                combine(left, right, i64::checked_add, |a, b| a + b)
            } else {
                combine(left, right, i64::checked_sub, |a, b| a - b)
            };
        }
        Ok(left)
    }

    /// `factor (('*' | '/') factor)*`
    fn product(&mut self, depth: usize) -> Result<Term, ExpressionError> {
        let mut left = self.factor(depth)?;
        while let Some(sign) = self.take(&['*', '/']) {
            let right = self.factor(depth)?;
            if sign == '*' {
                left = combine(left, right, i64::checked_mul, |a, b| a * b);
            } else if right.real() == 0.0 {
                return Err(Arithmetic("a division by zero".to_owned()));
            } else {
                left = combine(left, right, exact_quotient, |a, b| a / b);
            }
        }
        Ok(left)
    }

    /// `'-' factor | '(' sum ')' | name | number`
    fn factor(&mut self, depth: usize) -> Result<Term, ExpressionError> {
        if depth > MAX_DEPTH {
            return Err(Syntax("too many parentheses".to_owned()));
        }
        if self.take(&['-']).is_some() {
            let term = self.factor(depth + 1)?;
            return Ok(combine(Term::Whole(0), term, i64::checked_sub, |a, b| {
                a - b
            }));
        }
        if self.take(&['(']).is_some() {
            let inner = self.sum(depth + 1)?;
            let closed = self.take(&[')']);
            return closed
                .map(|_| inner)
                .ok_or_else(|| Syntax("`(` is not closed".to_owned()));
        }
        match self.peek() {
            Some(c) if starts_name(c) => self.name(),
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) => Err(Syntax(format!("`{c}` is out of place here"))),
            None if self.rest.is_empty() => {
                Err(Syntax("a number or parameter is missing".to_owned()))
            }
            None => Err(Syntax("nothing stands here".to_owned())),
        }
    }

    fn name(&mut self) -> Result<Term, ExpressionError> {
        let end = self
            .rest
            .find(|c| !continues_name(c))
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        let value = self
            .params
            .get(name)
            .ok_or_else(|| Undefined(name.to_owned()))?;
        match value {
            Value::Number(number) => Ok(Term::of(number)),
            _ => Err(Arithmetic(format!(
                "arithmetic takes numbers, and `{name}` is {value}"
            ))),
        }
    }

    fn number(&mut self) -> Result<Term, ExpressionError> {
        let bytes = self.rest.as_bytes();
        let mut end = 0;
        while end < bytes.len() {
            let exponent_sign = matches!(bytes[end], b'+' | b'-')
                && end > 0
                && matches!(bytes[end - 1], b'e' | b'E');
            let part = bytes[end].is_ascii_alphanumeric() || bytes[end] == b'.' || exponent_sign;
            if !part {
                break;
            }
            end += 1;
        }
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        if let Ok(whole) = text.parse::<i64>() {
            return Ok(Term::Whole(whole));
        }
        match text.parse::<f64>() {
            Ok(real) if real.is_finite() => Ok(Term::Real(real)),
            _ => Err(Syntax(format!("`{text}` is no number"))),
        }
    }
}

impl Term {
    fn of(number: &Number) -> Self {
        match number.as_i64() {
            Some(whole) => Self::Whole(whole),
            None => Self::Real(number.as_f64().unwrap_or(f64::NAN)),
        }
    }

    fn real(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Real(real) => real,
        }
    }

    fn value(self) -> Result<Value, ExpressionError> {
        match self {
            Self::Whole(whole) => Ok(Value::from(whole)),
            Self::Real(real) => Number::from_f64(real)
                .map(Value::Number)
                .ok_or_else(|| Arithmetic("the result is too large".to_owned())),
        }
    }
}

fn exact_quotient(a: i64, b: i64) -> Option<i64> {
    (a.checked_rem(b)? == 0).then(|| a / b)
}

/// Whole where both are and the result is, real otherwise.
fn combine(
    left: Term,
    right: Term,
    whole: impl Fn(i64, i64) -> Option<i64>,
    real: impl Fn(f64, f64) -> f64,
) -> Term {
    if let (Term::Whole(a), Term::Whole(b)) = (left, right)
        && let Some(result) = whole(a, b)
    {
        return Term::Whole(result);
    }
    Term::Real(real(left.real(), right.real()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::evaluate;

    fn params() -> BTreeMap<String, Value> {
        let all = json!({"rank": 16, "lr": 2e-4, "base": "smollm2", "files": ["a", "b"]});
        serde_json::from_value(all).unwrap()
    }

    fn value(text: &str) -> Result<Value, String> {
        evaluate(text, &params()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bare_name_keeps_its_type() {
        assert_eq!(value(" base "), Ok(json!("smollm2")));
        assert_eq!(value("files"), Ok(json!(["a", "b"])));
        assert_eq!(value("rank"), Ok(json!(16)));
    }

    #[test]
    fn arithmetic_binds_as_in_school_and_stays_whole_where_it_can() {
        assert_eq!(value("2 * rank"), Ok(json!(32)));
        assert_eq!(value("1 + 2 * (rank - 4) / 3"), Ok(json!(9)));
        assert_eq!(value("rank / 3"), Ok(json!(16.0 / 3.0)));
        assert_eq!(value("-rank - -1"), Ok(json!(-15)));
        assert_eq!(value("lr*1e1"), Ok(json!(2e-3)));
        assert_eq!(value("10 - 4 - 3"), Ok(json!(3)));
        assert_eq!(
            value("9007199254740993 + 0"),
            Ok(json!(9_007_199_254_740_993_i64))
        );
    }

    #[test]
    fn what_has_no_value_says_why() {
        for (text, why) in [
            ("rnak", "undefined parameter `rnak`"),
            ("2 * rnak", "undefined parameter `rnak`"),
            (
                "2 * base",
                "arithmetic takes numbers, and `base` is \"smollm2\"",
            ),
            ("1 / (rank - 16)", "a division by zero"),
            ("(1 + 2", "`(` is not closed"),
            ("1 + 2)", "`)` closes nothing"),
            ("2 rank", "`r` is out of place here"),
            ("2x", "`2x` is no number"),
            ("", "a number or parameter is missing"),
            ("3 *", "a number or parameter is missing"),
            ("rank % 2", "`%` is out of place here"),
            ("1e308 * 10", "the result is too large"),
        ] {
            assert_eq!(value(text), Err(why.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_value_or_a_reason(text in "[-+*/() .0-9a-z²\u{0}]{0,40}") {
            let _ = value(&text);
        }

        #[test]
        fn sums_and_products_are_those_of_integers(a in -1000_i64..1000, b in -1000_i64..1000, c in 1_i64..1000) {
            prop_assert_eq!(value(&format!("{a} + {b} * {c}")), Ok(json!(a + b * c)));
            prop_assert_eq!(value(&format!("({a} - {b}) * {c} / {c}")), Ok(json!(a - b)));
        }
    }
}
