//! The listener for logs: plain lines, no movement.
//!
//! Promises: a long stage says how far it is at least every [`OFTEN`] milliseconds of its
//! own events, more rarely as it gets longer, so a day of training is no wall of text.

use std::collections::BTreeMap;
use std::io::Write;

use super::listener::Listener;
use super::paint::Paint;
use super::story::{Setting, Story};
use crate::event::{Envelope, Event};

/// Milliseconds between progress lines of one stage in its first minutes.
const OFTEN: u64 = 10_000;

/// The share of a stage's age that may pass between two of its lines.
const CALM: u64 = 30;

/// Writes lines.
pub struct Plain<W> {
    out: W,
    story: Story,
    /// When each running stage began, and when it last had a line.
    shown: BTreeMap<String, (u64, u64)>,
}

impl<W: Write> Plain<W> {
    /// Writes to `out`.
    pub fn new(out: W, setting: Setting) -> Self {
        Self {
            out,
            story: Story::new(Paint::for_stdout(), setting),
            shown: BTreeMap::new(),
        }
    }

    fn due(&mut self, stage: &str, at: u64) -> bool {
        let (began, last) = self.shown.entry(stage.to_owned()).or_insert((at, at));
        let pause = OFTEN.max((at - *began) / CALM);
        let due = at.saturating_sub(*last) >= pause;
        if due {
            *last = at;
        }
        due
    }
}

impl<W: Write> Listener for Plain<W> {
    fn hear(&mut self, told: &Envelope) {
        let mut lines = self.story.hear(told);
        match &told.event {
            Event::StageStarted { stage, .. } => {
                self.shown.insert(stage.clone(), (told.at, told.at));
            }
            Event::RemoteProgress {
                stage,
                doing,
                bytes,
                total,
            } if self.due(&format!("{doing} {stage}"), told.at) => {
                lines.push(self.story.moving_line(stage, doing, *bytes, *total));
            }
            Event::Stage { stage, .. } if lines.is_empty() && self.due(stage, told.at) => {
                lines.extend(self.story.progress_line(stage));
            }
            _ => {}
        }
        if !lines.is_empty() {
            let mut text = lines.join("\n");
            text.push('\n');
            // A reader that went away does not stop the run.
            let _gone = self
                .out
                .write_all(text.as_bytes())
                .and_then(|()| self.out.flush());
        }
    }
}
