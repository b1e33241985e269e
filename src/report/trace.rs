//! Events -> the schedule as a picture: the Chrome trace event format, which
//! `chrome://tracing`, Perfetto and speedscope open.
//!
//! Promises: every try of every stage is one slice on the track of each pool that it held
//! slots of, in the lowest free lane (for `gpu`: the device's own); what is still open when
//! the events end is drawn up to there. Reads events only, so a recorded run and a running
//! one give the same picture.
//! Source: "Trace Event Format", the Chromium project.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stages::StageEvent;

use crate::event::{Envelope, Event};

/// The track of what holds no slots.
const NO_POOL: &str = "stages";

/// A try that goes on.
#[derive(Clone, Debug)]
struct Open {
    began: u64,
    attempt: u32,
    holds: BTreeMap<String, u64>,
    devices: Vec<String>,
    waited: u64,
    /// Pool and lane.
    lanes: Vec<(String, usize)>,
}

/// A run as a trace, folded up event by event.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    events: Vec<Value>,
    open: BTreeMap<String, Open>,
    /// Pool -> what each lane is busy with.
    lanes: BTreeMap<String, Vec<Option<String>>>,
    /// Names of lanes that are devices.
    devices: BTreeMap<String, usize>,
    now: u64,
}

impl Trace {
    /// The trace of a recorded run.
    pub fn of(events: &[Envelope]) -> Self {
        let mut trace = Self::default();
        for told in events {
            trace.hear(told);
        }
        trace
    }

    /// Hears one event.
    pub fn hear(&mut self, told: &Envelope) {
        self.now = self.now.max(told.at);
        match &told.event {
            Event::StageStarted {
                stage,
                attempt,
                holds,
                devices,
                waited,
                ..
            } => self.begin(
                stage,
                Open {
                    began: told.at,
                    attempt: *attempt,
                    holds: holds.clone(),
                    devices: devices.clone(),
                    waited: *waited,
                    lanes: Vec::new(),
                },
            ),
            Event::StageDone { stage, .. } => self.end(stage, "done"),
            Event::StageFailed {
                stage,
                error,
                again,
                ..
            } => {
                let ended = if *again {
                    "failed, tries again"
                } else {
                    "failed"
                };
                self.end(stage, &format!("{ended}: {}", error.code));
            }
            Event::StageSkipped { stage, because } => self.end(stage, because),
            Event::StagePeople { stage, .. } => self.end(stage, "waits for people"),
            Event::StageFresh {
                stage,
                restored: true,
                ..
            } => self.instant(stage, "restored"),
            Event::StagePulled { stage, .. } => self.instant(stage, "fetched from the remote"),
            Event::StagePushed { stage, .. } => self.instant(stage, "put to the remote"),
            Event::StageWaiting { stage, .. } => self.instant(stage, "waits for another process"),
            Event::Stage {
                stage,
                said: StageEvent::Metric { name, value, step },
            } => self.counter(stage, name, *value, *step),
            _ => {}
        }
    }

    fn begin(&mut self, stage: &str, mut open: Open) {
        let slots = open.holds.keys().filter(|pool| !is_size(pool)).cloned();
        let mut pools: Vec<String> = slots.collect();
        if pools.is_empty() {
            pools.push(NO_POOL.to_owned());
        }
        for pool in pools {
            let fixed = match (pool.as_str(), open.devices.first()) {
                ("gpu", Some(device)) => {
                    let next = self.devices.len();
                    Some(*self.devices.entry(device.clone()).or_insert(next))
                }
                _ => None,
            };
            let lanes = self.lanes.entry(pool.clone()).or_default();
            let lane = fixed
                .or_else(|| lanes.iter().position(Option::is_none))
                .unwrap_or(lanes.len());
            while lanes.len() <= lane {
                lanes.push(None);
            }
            lanes[lane] = Some(stage.to_owned());
            open.lanes.push((pool, lane));
        }
        self.open.insert(stage.to_owned(), open);
    }

    fn end(&mut self, stage: &str, ended: &str) {
        let Some(open) = self.open.remove(stage) else {
            return;
        };
        for (pool, lane) in &open.lanes {
            if let Some(lanes) = self.lanes.get_mut(pool) {
                lanes[*lane] = None;
            }
        }
        self.slices(stage, &open, ended);
    }

    fn slices(&mut self, stage: &str, open: &Open, ended: &str) {
        for (pool, lane) in &open.lanes {
            self.events.push(json!({
                "name": stage,
                "cat": "stage",
                "ph": "X",
                "ts": open.began * 1000,
                "dur": (self.now - open.began) * 1000,
                "pid": pool,
                "tid": lane,
                "args": {
                    "try": open.attempt,
                    "ended": ended,
                    "holds": open.holds,
                    "devices": open.devices,
                    "waited ms": open.waited,
                },
            }));
        }
    }

    fn instant(&mut self, stage: &str, what: &str) {
        self.events.push(json!({
            "name": format!("{stage}: {what}"),
            "cat": "stage",
            "ph": "i",
            "s": "g",
            "ts": self.now * 1000,
            "pid": NO_POOL,
            "tid": 0,
        }));
    }

    fn counter(&mut self, stage: &str, name: &str, value: f64, step: Option<u64>) {
        if step.is_none() || !value.is_finite() {
            return;
        }
        self.events.push(json!({
            "name": format!("{stage} {name}"),
            "ph": "C",
            "ts": self.now * 1000,
            "pid": NO_POOL,
            "args": { name: value },
        }));
    }

    /// The trace as a JSON object. Pools become processes, numbered by name.
    pub fn json(&self) -> Value {
        let mut whole = self.clone();
        for (stage, open) in &self.open {
            whole.slices(stage, open, "still running");
        }
        let pools: Vec<String> = whole.pools();
        let number = |pool: &str| pools.iter().position(|known| known == pool).unwrap_or(0) + 1;
        let mut events = Vec::new();
        for pool in &pools {
            let name = if pool == NO_POOL {
                pool.clone()
            } else {
                format!("pool {pool}")
            };
            events.push(json!({
                "name": "process_name", "ph": "M", "pid": number(pool),
                "args": { "name": name },
            }));
        }
        let gpu = number("gpu");
        for (device, lane) in &whole.devices {
            events.push(json!({
                "name": "thread_name", "ph": "M", "pid": gpu, "tid": lane,
                "args": { "name": format!("GPU {device}") },
            }));
        }
        for mut event in whole.events {
            if let Some(pid) = event.get_mut("pid") {
                *pid = json!(number(pid.as_str().unwrap_or(NO_POOL)));
            }
            events.push(event);
        }
        let mut object = Map::new();
        object.insert("traceEvents".to_owned(), Value::Array(events));
        object.insert("displayTimeUnit".to_owned(), json!("ms"));
        Value::Object(object)
    }

    fn pools(&self) -> Vec<String> {
        let named = self.events.iter().filter_map(|event| event["pid"].as_str());
        let mut pools: Vec<String> = named.map(str::to_owned).collect();
        pools.sort();
        pools.dedup();
        pools
    }
}

/// Memory and disk have sizes, no lanes.
fn is_size(pool: &str) -> bool {
    crate::config::resources::is_size(pool)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use serde_json::Value;
    use stages::{Outcome, StageError};

    use super::Trace;
    use crate::event::{Envelope, Event};

    fn started(at: u64, stage: &str, holds: &[(&str, u64)], devices: &[&str]) -> Envelope {
        let holds = holds.iter().map(|(pool, n)| ((*pool).to_owned(), *n));
        Envelope {
            at,
            event: Event::StageStarted {
                stage: stage.to_owned(),
                reasons: Vec::new(),
                log: PathBuf::new(),
                attempt: 1,
                holds: holds.collect(),
                devices: devices.iter().map(|id| (*id).to_owned()).collect(),
                waited: 0,
            },
        }
    }

    fn done(at: u64, stage: &str) -> Envelope {
        Envelope {
            at,
            event: Event::StageDone {
                stage: stage.to_owned(),
                millis: 0,
                outcome: Outcome::default(),
                unchanged: false,
                key: String::new(),
            },
        }
    }

    /// `name pool/lane from+length ended`, sorted.
    fn drawn(trace: &Value) -> Vec<String> {
        let events = trace["traceEvents"].as_array().expect("a list");
        let names: BTreeMap<u64, &str> = events
            .iter()
            .filter(|event| event["name"] == "process_name")
            .map(|event| {
                let name = event["args"]["name"].as_str().expect("a name");
                (event["pid"].as_u64().expect("a number"), name)
            })
            .collect();
        let slices = events.iter().filter(|event| event["ph"] == "X");
        let mut drawn: Vec<_> = slices
            .map(|event| {
                let pool = names[&event["pid"].as_u64().expect("a number")];
                let text = |name: &str| event["args"][name].as_str().expect("text").to_owned();
                format!(
                    "{} {pool}/{} {}+{} {}",
                    event["name"].as_str().expect("a name"),
                    event["tid"],
                    event["ts"],
                    event["dur"],
                    text("ended")
                )
            })
            .collect();
        drawn.sort();
        drawn
    }

    #[test]
    fn stages_lie_on_the_lanes_of_their_pools() {
        let error = StageError::new("run::exit", "no", "look");
        let trace = Trace::of(&[
            started(0, "a", &[("cpu", 1)], &[]),
            started(1, "b", &[("cpu", 1), ("memory", 5)], &[]),
            started(2, "t", &[("gpu", 1)], &["3"]),
            done(4, "a"),
            started(5, "c", &[("cpu", 1)], &[]),
            done(6, "t"),
            started(7, "u", &[("gpu", 1)], &["1"]),
            done(8, "b"),
            Envelope {
                at: 9,
                event: Event::StageFailed {
                    stage: "c".to_owned(),
                    error,
                    place: String::new(),
                    millis: 4,
                    log: PathBuf::new(),
                    again: false,
                    pause: 0,
                },
            },
        ]);
        assert_eq!(
            drawn(&trace.json()),
            [
                "a pool cpu/0 0+4000 done",
                "b pool cpu/1 1000+7000 done",
                "c pool cpu/0 5000+4000 failed: run::exit",
                "t pool gpu/0 2000+4000 done",
                "u pool gpu/1 7000+2000 still running",
            ]
        );
        let text = trace.json().to_string();
        assert!(text.contains("GPU 3") && text.contains("GPU 1"), "{text}");
    }
}
