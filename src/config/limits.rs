//! What bounds a stage and judges it: retries, time-out, gates. In no key.

use std::time::Duration;

use serde_json::Value;

use super::fault::Fault;
use super::node::{Entry, Node};
use super::pipeline::{Gate, Limits};
use super::section;
use super::template::Scope;

/// `retries: 2`, `timeout: 10m`.
pub(crate) fn limits(entries: &[Entry], scope: &Scope<'_>, faults: &mut Vec<Fault>) -> Limits {
    let retries = section::get(entries, "retries")
        .and_then(|entry| whole(&entry.value, "retries", (0, 100), scope, faults));
    let timeout = section::get(entries, "timeout").and_then(|entry| {
        let value = scope.value(&entry.value, faults)?;
        let parsed = value.as_str().and_then(duration);
        if parsed.is_none() {
            let fault =
                section::wrong_value(&entry.value.span, "timeout", "a time with a unit", &value);
            faults.push(fault.mend("write `90s`, `10m` or `1h30m`"));
        }
        parsed
    });
    Limits {
        retries: retries.unwrap_or(0) as u32,
        timeout,
    }
}

/// A whole number in a range, both ends included.
pub(crate) fn whole(
    node: &Node,
    name: &str,
    (low, high): (u64, u64),
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Option<u64> {
    let value = scope.value(node, faults)?;
    let number = value
        .as_u64()
        .filter(|number| (low..=high).contains(number));
    if number.is_none() {
        let takes = if high == u64::MAX {
            format!("a whole number from {low}")
        } else {
            format!("a whole number from {low} to {high}")
        };
        let quoted = value
            .as_str()
            .is_some_and(|text| text.trim().parse::<u64>().is_ok());
        let mend = if quoted {
            "write it without quotes"
        } else {
            "write a number in that range"
        };
        faults.push(section::wrong_value(&node.span, name, &takes, &value).mend(mend));
    }
    number
}

/// `90s`, `10m`, `1h30m`, `2d`: units from large to small, each once.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut seconds: u64 = 0;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            _ => return None,
        };
        if unit >= smallest {
            return None;
        }
        smallest = unit;
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    (seconds > 0 && seconds < u64::from(u32::MAX)).then(|| Duration::from_secs(seconds))
}

/// `gates: {tool_selection: ">= 0.8"}`.
pub(crate) fn gates(
    entry: Option<&Entry>,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Vec<Gate> {
    let Some(entry) = entry else {
        return Vec::new();
    };
    let mut gates = Vec::new();
    for entry in section::map(&entry.value, "gates", faults) {
        let Some(value) = scope.value(&entry.value, faults) else {
            continue;
        };
        match value.as_str().and_then(threshold) {
            Some((at_least, threshold)) => gates.push(Gate {
                metric: entry.key.clone(),
                at_least,
                threshold,
                span: entry.value.span.clone(),
            }),
            None => faults.push(bad_gate(entry, &value)),
        }
    }
    gates
}

fn bad_gate(entry: &Entry, value: &Value) -> Fault {
    let name = &entry.key;
    let mend = match value {
        Value::Number(number) => format!("write `{name}: \">= {number}\"`"),
        _ => format!("write `{name}: \">= 0.8\"`"),
    };
    section::wrong_value(
        &entry.value.span,
        name,
        "a bound, `>=` or `<=` and a number",
        value,
    )
    .mend(mend)
}

fn threshold(text: &str) -> Option<(bool, f64)> {
    let text = text.trim();
    let (at_least, number) = match text.strip_prefix(">=") {
        Some(number) => (true, number),
        None => (false, text.strip_prefix("<=")?),
    };
    let number: f64 = number.trim().parse().ok()?;
    number.is_finite().then_some((at_least, number))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{duration, threshold};

    #[test]
    fn times_carry_their_unit() {
        assert_eq!(duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Some(Duration::from_mins(90)));
        assert_eq!(duration("2d"), Some(Duration::from_hours(48)));
        for bad in [
            "",
            "10",
            "m",
            "10 m",
            "30m1h",
            "1m1m",
            "-1s",
            "0s",
            "1.5h",
            "9999999999999999999d",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_gate_is_a_bound_and_a_number() {
        assert_eq!(threshold(">= 0.8"), Some((true, 0.8)));
        assert_eq!(threshold("<=3"), Some((false, 3.0)));
        for bad in ["0.8", "> 0.8", ">= x", ">= nan", ""] {
            assert_eq!(threshold(bad), None, "{bad}");
        }
    }
}
