//! `{from: 1e-5, to: 1e-3, count: 5, scale: log}`: the values of one axis of a sweep.
//!
//! | written | values |
//! | --- | --- |
//! | `from, to, step` | `from`, `from + step`, .. as long as they are not above `to` |
//! | `from, to, factor` | `from`, `from * factor`, .. as long as they are not above `to` |
//! | `from, to, count` | so many, evenly apart, both ends among them |
//! | `from, to, count, scale: log` | so many, each the same factor from the next, to three digits |

use std::collections::BTreeMap;

use serde_json::Value;

use super::fault::Fault;
use super::matrix::MOST_CELLS;
use super::node::{Entry, Node};
use super::section;
use super::template::Scope;

const KEYS: [&str; 6] = ["from", "to", "step", "factor", "count", "scale"];

/// Significant digits of values on a linear and on a logarithmic scale: what nobody would write
/// by hand (`0.30000000000000004`) is in no name.
const DIGITS: (usize, usize) = (12, 3);

/// A value may be so much above `to`, in steps, and count as `to`.
const SLACK: f64 = 1e-9;

/// The values of a range; `None` after a fault.
pub(crate) fn values(
    node: &Node,
    entries: &[Entry],
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Option<Vec<Value>> {
    let before = faults.len();
    section::only(entries, &KEYS, "a range", faults);
    let mut numbers: BTreeMap<&str, f64> = BTreeMap::new();
    let mut whole = true;
    for entry in entries.iter().filter(|entry| entry.key != "scale") {
        let value = scope.value(&entry.value, faults)?;
        match value.as_f64() {
            Some(number) => {
                whole &= entry.key == "count" || !value.is_f64();
                numbers.insert(&entry.key, number);
            }
            None => faults.push(section::wrong(
                &entry.value,
                &entry.key,
                "a number",
                "write it without quotes",
            )),
        }
    }
    let log = match section::get(entries, "scale").map(|entry| &entry.value) {
        None => false,
        Some(scale) => match scale.text() {
            Some("log") => true,
            Some("linear") => false,
            _ => {
                faults.push(section::wrong(
                    scale,
                    "scale",
                    "`linear` or `log`",
                    "leave it out for a linear scale",
                ));
                false
            }
        },
    };
    if faults.len() > before {
        return None;
    }
    let bad = |message: &str, mend: &str| {
        let fault = Fault::at(&node.span, "config::bad-range", message);
        Err(Box::new(fault.label("this range").mend(mend)))
    };
    let found = match spaced(&numbers, log) {
        Ok(found) if found.is_empty() => {
            bad("the range holds no value", "let `from` be the smaller end")
        }
        Ok(found) if found.len() > MOST_CELLS => bad(
            &format!("the range holds more than {MOST_CELLS} values"),
            "take a larger step, or a count",
        ),
        Ok(found) => Ok(found),
        Err((message, mend)) => bad(message, mend),
    };
    let found = found.map_err(|fault| faults.push(*fault)).ok()?;
    let digits = if log { DIGITS.1 } else { DIGITS.0 };
    let value = |number: f64| {
        let number = rounded(number, digits);
        if whole && number.fract() == 0.0 {
            Value::from(number as i64)
        } else {
            Value::from(number)
        }
    };
    Some(found.into_iter().map(value).collect())
}

type Slip = (&'static str, &'static str);

fn spaced(numbers: &BTreeMap<&str, f64>, log: bool) -> Result<Vec<f64>, Slip> {
    let get = |name: &str| numbers.get(name).copied();
    let (Some(from), Some(to)) = (get("from"), get("to")) else {
        return Err(("a range has two ends", "write `from:` and `to:`"));
    };
    match (get("step"), get("factor"), get("count")) {
        (Some(step), None, None) if !log => {
            if step <= 0.0 {
                return Err(("a step is above zero", "write it without the sign"));
            }
            let steps = ((to - from) / step + SLACK).floor();
            Ok(up_to(steps, |at| from + step * at))
        }
        (None, Some(factor), None) => {
            if factor <= 1.0 || from <= 0.0 {
                return Err((
                    "a factor is above one, and `from` above zero",
                    "use `step` or `count` for other ranges",
                ));
            }
            let steps = ((to / from).ln() / factor.ln() + SLACK).floor();
            Ok(up_to(steps, |at| from * factor.powf(at)))
        }
        (None, None, Some(count)) => {
            if count < 1.0 || count.fract() != 0.0 || count > MOST_CELLS as f64 {
                return Err((
                    "a count is a whole number from 1 to 1000",
                    "write `count: 5`",
                ));
            }
            if log && (from <= 0.0 || to <= 0.0) {
                return Err((
                    "a logarithmic scale has no zero",
                    "let both ends be above zero",
                ));
            }
            let share = |at: f64| if count > 1.0 { at / (count - 1.0) } else { 0.0 };
            Ok(up_to(count - 1.0, |at| {
                if log {
                    from * (to / from).powf(share(at))
                } else {
                    from + (to - from) * share(at)
                }
            }))
        }
        (Some(_), None, None) => Err((
            "a step is added, so it goes with a linear scale",
            "write `factor: 2` or `count: 5`",
        )),
        _ => Err((
            "a range says in one way how many values it has",
            "write one of `step`, `factor` and `count`",
        )),
    }
}

/// The values at 0, 1, .. `last`; one more than is allowed at most.
fn up_to(last: f64, value: impl Fn(f64) -> f64) -> Vec<f64> {
    (0..=MOST_CELLS)
        .map(|at| at as f64)
        .take_while(|at| *at <= last)
        .map(value)
        .collect()
}

fn rounded(number: f64, digits: usize) -> f64 {
    format!("{number:.*e}", digits - 1)
        .parse()
        .unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, f64)], log: bool) -> Result<Vec<f64>, Slip> {
        let digits = if log { DIGITS.1 } else { DIGITS.0 };
        let found = spaced(&pairs.iter().copied().collect(), log)?;
        Ok(found.into_iter().map(|x| rounded(x, digits)).collect())
    }

    #[test]
    fn ranges_hold_both_ends_where_they_can() {
        let (from, to) = (("from", 8.0), ("to", 64.0));
        assert_eq!(
            of(&[from, to, ("factor", 2.0)], false),
            Ok(vec![8.0, 16.0, 32.0, 64.0])
        );
        assert_eq!(
            of(&[from, to, ("step", 28.0)], false),
            Ok(vec![8.0, 36.0, 64.0])
        );
        assert_eq!(of(&[from, to, ("step", 50.0)], false), Ok(vec![8.0, 58.0]));
        let small = [("from", 1e-5), ("to", 1e-3)];
        let log = [small[0], small[1], ("count", 5.0)];
        assert_eq!(of(&log, true), Ok(vec![1e-5, 3.16e-5, 1e-4, 3.16e-4, 1e-3]));
        let tenths = [("from", 0.1), ("to", 0.5), ("step", 0.1)];
        assert_eq!(of(&tenths, false), Ok(vec![0.1, 0.2, 0.3, 0.4, 0.5]));
        assert_eq!(
            of(&[("from", 0.0), ("to", 1.0), ("count", 1.0)], false),
            Ok(vec![0.0])
        );
    }

    #[test]
    fn ranges_that_say_too_little_or_too_much_are_refused() {
        let ends = [("from", 0.0), ("to", 1.0)];
        let with =
            |more: &[(&'static str, f64)], log| of(&[&ends[..], more].concat(), log).is_err();
        assert!(with(&[], false));
        assert!(with(&[("step", 0.1), ("count", 3.0)], false));
        assert!(with(&[("step", 0.1)], true));
        assert!(with(&[("step", -0.1)], false));
        assert!(with(&[("factor", 2.0)], false));
        assert!(with(&[("count", 2.0)], true));
        assert!(with(&[("count", 2.5)], false));
        assert!(of(&[("from", 0.0), ("step", 1.0)], false).is_err());
        assert_eq!(
            of(&[("from", 1.0), ("to", 0.0), ("step", 1.0)], false),
            Ok(vec![])
        );
    }
}
