//! Gates: checks on a stage's metrics, in no key.

use std::collections::BTreeMap;

use crate::config::Gate;
use crate::event::Event;

/// Looks at every gate of a stage; one event each.
pub(crate) fn look(stage: &str, gates: &[Gate], metrics: &BTreeMap<String, f64>) -> Vec<Event> {
    gates
        .iter()
        .map(|gate| {
            let value = metrics.get(&gate.metric).copied();
            Event::Gate {
                stage: stage.to_owned(),
                metric: gate.metric.clone(),
                value,
                wanted: wanted(gate),
                passed: value.is_some_and(|value| holds(gate, value)),
            }
        })
        .collect()
}

/// Whether a value passes; one that is not a number never does.
fn holds(gate: &Gate, value: f64) -> bool {
    if gate.at_least {
        value >= gate.threshold
    } else {
        value <= gate.threshold
    }
}

/// `>= 0.8`.
fn wanted(gate: &Gate) -> String {
    let sign = if gate.at_least { ">=" } else { "<=" };
    format!("{sign} {}", gate.threshold)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::look;
    use crate::config::Gate;
    use crate::event::Event;

    fn passes(at_least: bool, threshold: f64, value: Option<f64>) -> bool {
        let gate = Gate {
            metric: "accuracy".into(),
            at_least,
            threshold,
            span: 0..0,
        };
        let metrics: BTreeMap<_, _> = value
            .map(|value| ("accuracy".into(), value))
            .into_iter()
            .collect();
        match look("eval", &[gate], &metrics).pop() {
            Some(Event::Gate { passed, .. }) => passed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn thresholds_are_inclusive_and_a_missing_metric_fails() {
        assert!(passes(true, 0.8, Some(0.8)));
        assert!(!passes(true, 0.8, Some(0.79)));
        assert!(passes(false, 0.1, Some(0.1)));
        assert!(!passes(false, 0.1, Some(0.2)));
        assert!(!passes(true, 0.8, None));
        assert!(!passes(true, 0.8, Some(f64::NAN)));
        assert!(!passes(false, 0.8, Some(f64::NAN)));
    }
}
