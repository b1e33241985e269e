//! One row drawn from a script.
//!
//! Promises: what a slot held once it holds for the whole row; user turns and results
//! bind slots, answers and calls only use bound ones. Must not know: quotas, files.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

use super::book::{Book, CallShape, IDS, Script, Shape, Turn, base};
use super::moment::{self, KINDS, Moment};
use super::register::Register;
use super::template::{Part, Slot, Template};
use crate::conversation::{Call, Message};

/// What a slot holds.
#[derive(Clone, Debug, PartialEq)]
enum Bound {
    Fields(BTreeMap<String, String>),
    Moment(Moment),
}

/// Where a text will stand: it decides how a time is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a user turn; unbound slots are drawn.
    User,
    /// In an answer; slots must be bound.
    Answer,
    /// In a call; slots must be bound.
    Param,
    /// In a tool result; unbound slots are drawn.
    Result,
}

/// Draws rows of one random stream.
pub(super) struct Drawer<'a> {
    book: &'a Book,
    now: DateTime,
    register: Register,
    bound: BTreeMap<String, Bound>,
    rng: &'a mut ChaCha8Rng,
}

/// Why a row could not be drawn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// `now` leaves no room for a time that the text wants; another draw may.
    NoRoom,
    /// No answer of the script can be filled from what the user said: a fault of the book.
    Unbound(String),
}

impl<'a> Drawer<'a> {
    pub(super) fn new(book: &'a Book, now: DateTime, rng: &'a mut ChaCha8Rng) -> Self {
        let register = Register::draw(rng);
        Self {
            book,
            now,
            register,
            bound: BTreeMap::new(),
            rng,
        }
    }

    /// Draws the turns of a script; its first user turn uses alternative `first`. Slots
    /// bound by an earlier script stay bound: the two sides of a pair share a subject.
    pub(super) fn row(&mut self, script: &Script, first: usize) -> Result<Vec<Message>, Failed> {
        let mut messages: Vec<Message> = Vec::new();
        for turn in script {
            let message = match turn {
                Turn::MayEnd if self.rng.random_bool(0.72) => break,
                Turn::MayEnd => continue,
                Turn::User(texts) => {
                    let text = if messages.is_empty() {
                        &texts[first % texts.len()]
                    } else {
                        texts.choose(self.rng).expect("the book has no empty list")
                    };
                    let text = self.fill(text, Place::User)?;
                    let content = self.register.apply(&text, &self.book.typos, self.rng);
                    Message::User { content }
                }
                Turn::Say(texts, calls) => self.answer(texts, calls)?,
                Turn::Result(shape) => Message::Tool {
                    content: self.shape(shape, Place::Result)?,
                },
            };
            messages.push(message);
        }
        Ok(messages)
    }

    fn answer(&mut self, texts: &[Template], calls: &[CallShape]) -> Result<Message, Failed> {
        let calls = calls
            .iter()
            .map(|call| self.call(call))
            .collect::<Result<_, _>>()?;
        let mut order: Vec<&Template> = texts.iter().collect();
        order.shuffle(self.rng);
        let mut last = Failed::NoRoom;
        for text in order {
            match self.fill(text, Place::Answer) {
                Ok(content) => {
                    return Ok(Message::Assistant {
                        content: tidy(&content),
                        calls,
                    });
                }
                Err(failed) => last = failed,
            }
        }
        Err(last)
    }

    /// A call; a parameter whose slots were not said is left out.
    fn call(&mut self, shape: &CallShape) -> Result<Call, Failed> {
        let mut params = Map::new();
        for (name, value) in &shape.params {
            match self.shape(value, Place::Param) {
                Ok(value) => {
                    params.insert(name.clone(), value);
                }
                Err(Failed::Unbound(_)) => {}
                Err(failed) => return Err(failed),
            }
        }
        Ok(Call {
            tool: shape.tool.clone(),
            params,
        })
    }

    fn shape(&mut self, shape: &Shape, place: Place) -> Result<Value, Failed> {
        match shape {
            Shape::Plain(value) => Ok(value.clone()),
            Shape::Number(text) => {
                let text = self.fill(text, place)?;
                let number = text.parse::<i64>();
                number
                    .map(Value::from)
                    .map_err(|_| Failed::Unbound(format!("`{text}` is no number")))
            }
            Shape::Text(texts) => {
                let mut last = Failed::NoRoom;
                for text in texts {
                    match self.fill(text, place) {
                        Ok(text) => return Ok(Value::String(tidy(&text))),
                        Err(failed) => last = failed,
                    }
                }
                Err(last)
            }
            Shape::List(items) => self.list(items, place),
            Shape::Object(fields) => fields
                .iter()
                .map(|(name, value)| Ok((name.clone(), self.shape(value, place)?)))
                .collect::<Result<Map<_, _>, _>>()
                .map(Value::from),
        }
    }

    /// The items that can be filled; none of several is as if the list was not said.
    fn list(&mut self, items: &[Shape], place: Place) -> Result<Value, Failed> {
        let mut list = Vec::new();
        let mut missing = None;
        for item in items {
            match self.shape(item, place) {
                Ok(value) => list.push(value),
                Err(Failed::Unbound(cause)) => missing = Some(Failed::Unbound(cause)),
                Err(failed) => return Err(failed),
            }
        }
        match missing {
            Some(failed) if list.is_empty() => Err(failed),
            _ => Ok(Value::from(list)),
        }
    }

    fn fill(&mut self, template: &Template, place: Place) -> Result<String, Failed> {
        let mut text = String::new();
        for part in &template.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Phrase(name) => {
                    let book = self.book;
                    let list = &book.phrases[name];
                    let chosen = list.choose(self.rng).expect("the book has no empty list");
                    text.push_str(&self.fill(chosen, place)?);
                }
                Part::Choice(choices) => text.push_str(&self.choose(choices, place)?),
                Part::Slot(slot) => text.push_str(&self.slot(slot, place)?),
            }
        }
        Ok(text)
    }

    /// One of the choices that can be filled.
    fn choose(&mut self, choices: &[Template], place: Place) -> Result<String, Failed> {
        let mut order: Vec<&Template> = choices.iter().collect();
        order.shuffle(self.rng);
        let mut last = Failed::NoRoom;
        for choice in order {
            match self.fill(choice, place) {
                Ok(text) => return Ok(text),
                Err(failed) => last = failed,
            }
        }
        Err(last)
    }

    fn slot(&mut self, slot: &Slot, place: Place) -> Result<String, Failed> {
        if !self.bound.contains_key(&slot.name) {
            if matches!(place, Place::Answer | Place::Param) {
                return Err(Failed::Unbound(format!("`{}` was not said", slot.name)));
            }
            let value = self.draw(&slot.name)?;
            self.bound.insert(slot.name.clone(), value);
        }
        let text = match &self.bound[&slot.name] {
            _ if slot.field.as_deref() == Some("none") => Some(String::new()),
            Bound::Fields(fields) => {
                let field = slot.field.as_deref().unwrap_or("text");
                fields.get(field).cloned()
            }
            Bound::Moment(moment) => {
                let usual = match place {
                    Place::User => "text",
                    Place::Answer => "say",
                    Place::Param | Place::Result if base(&slot.name) == "date" => "date",
                    Place::Param | Place::Result => "iso",
                };
                moment.field(slot.field.as_deref().unwrap_or(usual))
            }
        };
        let text = text.ok_or_else(|| {
            let field = slot.field.as_deref().unwrap_or("text");
            Failed::Unbound(format!("`{}` has no `{field}`", slot.name))
        })?;
        Ok(slot.filter.map_or_else(|| text.clone(), |f| f.apply(&text)))
    }

    /// A value that no other slot of the same list holds.
    fn draw(&mut self, name: &str) -> Result<Bound, Failed> {
        for _ in 0..24 {
            let value = self.draw_any(base(name))?;
            let taken = self
                .bound
                .iter()
                .any(|(other, held)| base(other) == base(name) && same(held, &value));
            if !taken {
                return Ok(value);
            }
        }
        Err(Failed::NoRoom)
    }

    fn draw_any(&mut self, list: &str) -> Result<Bound, Failed> {
        if KINDS.contains(&list) {
            let moment = moment::draw(list, self.now, self.rng).ok_or(Failed::NoRoom)?;
            return Ok(Bound::Moment(moment));
        }
        if let Some((_, prefix)) = IDS.iter().find(|(id, _)| *id == list) {
            let most = *[99, 999, 999, 9999].choose(self.rng).expect("not empty");
            let id = format!("{prefix}{}", self.rng.random_range(2..=most));
            return Ok(text_only(id));
        }
        let entry = self.book.slots[list]
            .choose(self.rng)
            .expect("the book has no empty list");
        // A value's own slots are its own: two people in two tasks are two people.
        let outer = std::mem::take(&mut self.bound);
        let fields = entry
            .iter()
            .map(|(name, template)| Ok((name.clone(), self.fill(template, Place::User)?)))
            .collect::<Result<_, _>>();
        self.bound = outer;
        Ok(Bound::Fields(fields?))
    }
}

fn text_only(text: String) -> Bound {
    Bound::Fields([("text".to_owned(), text)].into())
}

fn same(a: &Bound, b: &Bound) -> bool {
    match (a, b) {
        (Bound::Moment(a), Bound::Moment(b)) => a.start == b.start,
        _ => a == b,
    }
}

/// Single blanks, none at the ends: choices may leave some behind.
pub(super) fn tidy(text: &str) -> String {
    text.split(' ')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
