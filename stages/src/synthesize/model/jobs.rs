//! What is asked: streams of batches, each with its own people, registers and clock.
//!
//! Promises: batch `n` of a stream is the same request whatever the number of rows
//! wanted. There is no temperature any more; variety comes from what a batch is told.
//! Must not know: how a service is spoken to.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::schema;
use crate::conversation::Kind;
use crate::format::json as spaced;
use crate::similarity::hash;
use crate::tools::ToolSet;

/// Rows of one kind, and of one tool where the kind has one.
pub(super) struct Stream {
    pub(super) kind: Kind,
    pub(super) tool: Option<String>,
    pub(super) want: usize,
}

/// One request.
pub(super) struct Batch<'a> {
    pub(super) stream: &'a Stream,
    pub(super) number: usize,
    /// What the user turn says.
    pub(super) task: String,
    /// The schema of the answer.
    pub(super) schema: Value,
}

const PEOPLE: [&str; 24] = [
    "a nurse on shift work",
    "a retired teacher",
    "a student in a shared flat",
    "a startup founder",
    "a father of three",
    "a freelance translator",
    "a bakery owner",
    "a project manager",
    "a PhD candidate",
    "a landscape gardener",
    "a violinist",
    "a sales representative who travels",
    "a school secretary",
    "a software developer",
    "a mechanic",
    "a charity volunteer",
    "a lawyer",
    "a farmer",
    "a wedding planner",
    "an amateur football coach",
    "a museum guide",
    "a landlady of two flats",
    "a night-time taxi driver",
    "a pharmacist",
];

const REGISTERS: [&str; 6] = [
    "formal full sentences",
    "casual lower case",
    "terse fragments of three to six words",
    "chatty, with a reason attached",
    "hurried, with a typo or an abbreviation",
    "polite questions",
];

/// The streams for `count` rows.
pub(super) fn streams(tools: &ToolSet, mix: &BTreeMap<Kind, f64>, count: usize) -> Vec<Stream> {
    let total: f64 = mix.values().sum::<f64>().max(1e-9);
    let mut streams = Vec::new();
    for (kind, share) in mix {
        let want = (count as f64 * share / total).round() as usize;
        let named: Vec<Option<String>> = match kind {
            Kind::Single => tools.names().map(|name| Some(name.to_owned())).collect(),
            Kind::Crud => {
                let by_id = tools.specs().filter(|spec| spec.field("id").is_some());
                by_id.map(|spec| Some(spec.name.clone())).collect()
            }
            _ => vec![None],
        };
        let parts = named.len().max(1);
        for (at, tool) in named.into_iter().enumerate() {
            let want = want / parts + usize::from(at < want % parts);
            streams.push(Stream {
                kind: *kind,
                tool,
                want,
            });
        }
    }
    streams.retain(|stream| stream.want > 0);
    streams
}

impl Stream {
    /// `single/createTask`.
    pub(super) fn name(&self) -> String {
        match &self.tool {
            Some(tool) => format!("{}/{tool}", self.kind),
            None => self.kind.to_string(),
        }
    }

    /// Batch `number` of the stream.
    pub(super) fn batch(
        &self,
        number: usize,
        size: usize,
        seed: u64,
        tools: &ToolSet,
    ) -> Batch<'_> {
        let name = format!("{seed}/{}/{number}", self.name());
        let mut rng = ChaCha8Rng::seed_from_u64(hash(name.as_bytes()));
        let mut people = PEOPLE.to_vec();
        people.shuffle(&mut rng);
        let first = jiff::civil::date(2026, 1, 5);
        let cast: Vec<String> = (0..size)
            .map(|at| {
                use rand::Rng;
                let date = first.saturating_add(jiff::Span::new().days(rng.random_range(0..350)));
                let now = date.at(rng.random_range(6..=21), rng.random_range(0..60), 0, 0);
                let register = REGISTERS.choose(&mut rng).expect("not empty");
                format!(
                    "{}. now {} ({}): {}, {register}",
                    at + 1,
                    now.strftime("%Y-%m-%dT%H:%M"),
                    now.strftime("%A"),
                    people[at % people.len()],
                )
            })
            .collect();
        Batch {
            stream: self,
            number,
            task: format!(
                "Write {size} examples. {}\n\nOne for each line below, in this order, with its `now`, its person and its register:\n{}",
                self.task(),
                cast.join("\n")
            ),
            schema: schema::answer(self, tools),
        }
    }

    fn task(&self) -> String {
        let tool = self.tool.as_deref().unwrap_or_default();
        match self.kind {
            Kind::Single => format!(
                "Each is one request that needs exactly one call of `{tool}`, and nothing else. Vary which optional parameters the request gives. Tools that take an id get it from the user's words, such as `task_81` or `evt_204`."
            ),
            Kind::Contrastive => "Make pairs: two examples after each other share a subject and the `pair` number. In the first the user has something to do (createTask), in the second something takes place at a time (createCalendarEvent). Only the wording decides.".to_owned(),
            Kind::Negative => "Each is a message that looks as if it might need a tool and does not: small talk, questions about the assistant or its tools, facts, vague wishes, things it cannot do, requests without their essentials. The answer is plain text without any call.".to_owned(),
            Kind::Crud => format!(
                "Each is a conversation whose last turn calls `{tool}` with an id that an earlier tool result gave: first a request that lists or creates something, its result, a short answer, then the request for `{tool}`."
            ),
            Kind::MultiTurn => "Each is a conversation of two or three requests that build on each other: a question back, a correction, a follow-up, a thank-you. Include the tool results.".to_owned(),
            Kind::Compound => "Each is one message with two requests that need two calls in one answer, of the same tool or of different ones.".to_owned(),
            Kind::General => "Each is an ordinary instruction without any tool: explain, rewrite, summarise, calculate, list. The answer is short and right.".to_owned(),
        }
    }
}

/// What every batch is told; the same bytes each time, so that the service can cache it.
pub(super) fn system(tools: &ToolSet) -> String {
    let list: Vec<String> = tools
        .specs()
        .map(|spec| {
            format!(
                "- {}: {}\n  {}",
                spec.name,
                spec.description,
                spaced(&spec.params)
            )
        })
        .collect();
    format!(
        "You write training data for a personal assistant that calls tools. Its tools:\n{}\n\n\
         Rules for the examples:\n\
         - User texts are what real people type: varied names, places, subjects and lengths; no two alike, no template. Never mention a tool by name unless asked to.\n\
         - `prose` before a call is one short sentence (3 to 12 words) that says what will happen and starts with \"I'll\". After a result it is a short confirmation without a call.\n\
         - An optional parameter is null unless the user gave it. `priority` only with a sign of urgency (high) or of \"whenever\" (low).\n\
         - Times are the user's wall clock as 2026-03-03T09:00:00Z. A day without a time is 09:00, noon 12:00, afternoon 15:00, evening 18:00, tonight 20:00. A weekday is the next one after `now`. `endTime` only if the user gave an end or a duration. `dueBefore` is the first moment that no longer counts.\n\
         - `getWeather` has a date only for another day than today. `attendees` only if somebody is to be invited.\n\
         - Ids are taken from the conversation, never invented. A task id looks like task_81, an event id like evt_204; vary the digits.\n\
         - `results` holds one JSON text for each call of the turn when the conversation goes on after it, else it is empty: {{\"id\": \"task_81\", \"status\": \"created\"}}, {{\"tasks\": [{{\"id\": \"task_12\", \"title\": \"Buy milk\"}}]}}, {{\"location\": \"Oslo\", \"temp\": 4, \"condition\": \"clear\"}}. `after` is what the assistant says after the results, or null.\n\
         - Do arithmetic on dates with care; check each weekday against `now`.",
        list.join("\n")
    )
}

/// The default shares: the plan's composition without general rows.
pub(in crate::synthesize) fn plan_mix() -> BTreeMap<Kind, f64> {
    let mix = json!({"single": 0.48, "contrastive": 0.15, "negative": 0.13, "crud": 0.1, "multi_turn": 0.08, "compound": 0.06});
    serde_json::from_value(mix).expect("the kinds are known")
}
